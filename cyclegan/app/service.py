"""What the page and the programs' side of it work with, in one place."""

import contextvars
import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from PIL import Image

from cyclegan.app.engine import Engine, GivenUp
from cyclegan.app.limits import Limits, said_of
from cyclegan.app.offered import Offered, Shelf
from cyclegan.app.sessions import Sessions
from cyclegan.app.trainings import Trainings
from cyclegan.app.translating import Translating, Wish, preview
from cyclegan.errors import BadInput, Failed
from cyclegan.images import read_image

THUMB_SIDE = 96
PLAIN = (168, 162, 158)  # grey, where there is no picture to show
AT_ONCE = 8  # requests of a kind that are worked on; the others wait in the queue
# For what the page does by itself and may refuse: at once, but through the queue, outside of which gradio
# answers a refusal as a failure of the server (HTTP 500).
TELLING = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}


@dataclass(frozen=True)
class Service:
    """One server's parts."""

    limits: Limits
    sessions: Sessions
    engine: Engine
    shelf: Shelf
    trainings: Trainings

    def translating(self, generator: str, wish: Wish, session: str, seen: bool = True) -> Translating:
        """What a request translates with.

        Raises:
            BadInput: a generator that is not offered, or a wish that cannot be.
        """
        chosen = self.shelf.generator(generator)
        wanted = lambda: self.sessions.is_open(session)  # noqa: E731
        return Translating(self.engine, chosen.path, wish, self.limits, wanted, seen)

    def example(self, offered: Offered, number: int) -> Path | None:
        """A small copy of one of the generator's held-out pictures, made once."""
        pictures = self.shelf.examples(offered)
        if number >= len(pictures):
            return None
        return self._thumb(pictures[number])

    def thumbnail(self, offered: Offered) -> tuple[Path | None, Path | None]:
        """A held-out picture and its translation, small; the latter if the run has kept one."""
        pictures = self.shelf.examples(offered)[:1]
        if not pictures:
            return None, None
        before = self.example(offered, 0)
        after = None
        if offered.run is not None:
            kept = offered.run / "translated" / offered.config.direction / pictures[0].name
            after = self._thumb(kept) if kept.is_file() else None
        return before, after

    def face(self, offered: Offered) -> Path:
        """One small picture for a generator: its translation, else what it translates, else a plain one."""
        before, after = self.thumbnail(offered)
        plain = self.sessions.shared / "plain.png"
        if not plain.is_file():
            Image.new("RGB", (THUMB_SIDE, THUMB_SIDE), PLAIN).save(plain)
        return after or before or plain

    def _thumb(self, picture: Path) -> Path | None:
        name = hashlib.sha256(str(picture).encode()).hexdigest()[:16]
        target = self.sessions.shared / f"{name}.png"
        if not target.is_file():
            try:
                preview(read_image(picture, max_pixels=self.limits.pixels).pixels, THUMB_SIDE).save(target)
            except BadInput:  # removed or damaged since the training
                return None
        return target


@contextmanager
def told(*paths: Path | str | None) -> Iterator[None]:
    """What a person or a program did that cannot be, said to them; ``paths`` are not named in full."""
    try:
        yield
    except (BadInput, Failed) as error:
        known = [Path(path) for path in paths if path]
        raise gr.Error(said_of(error, *known), title="This cannot be done", print_exception=False) from error
    except GivenUp as error:
        raise gr.Error("Stopped.", title="Stopped", print_exception=False) from error


def session_of(request: gr.Request) -> str:
    """The session of a request; programs that name none get one for this request alone."""
    return request.session_hash or secrets.token_hex(16)


def teller(progress: gr.Progress) -> Callable[[float, str], None]:
    """Progress that other threads than the request's can tell; a share of 0 or 1 shows words alone."""
    context = contextvars.copy_context()

    def say(share: float, what: str) -> None:
        context.run(progress, share if 0 < share < 1 else None, what)

    return say
