"""Stylization as `cyclegan stylize` does it, in a process of its own that can be stopped at any step."""

import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from cyclegan.app.engine import GivenUp
from cyclegan.app.limits import Limits, check_picture, said_of
from cyclegan.app.translating import preview
from cyclegan.errors import BadInput, Failed
from cyclegan.images import read_image

METHODS = ("fast", "optimize")
STYLE_WEIGHT = 0.25  # of the command; a strength of 1 is that
EVERY = 5  # steps from one preview to the next
POLL_S = 0.5
_STEP = re.compile(r"step (\d+)/(\d+) at (\d+)x(\d+)")


@dataclass(frozen=True)
class Look:
    """How pictures are to be stylized.

    Args:
        method: ``fast`` is one pass of a network; ``optimize`` changes the picture step by step.
        strength: more than 0 to 1.
        blend: 0 to 1, the second style's share where there is one.
        size: longer side in pixels at which it is computed; None: its own.
        steps: of ``optimize``, at the coarsest scale.
    """

    method: str = "fast"
    strength: float = 1.0
    blend: float = 0.5
    size: int | None = None
    steps: int = 100

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BadInput(f"method: must be {' or '.join(METHODS)}, not {self.method}")
        if not 0 < self.strength <= 1:
            raise BadInput(f"strength: must be more than 0 and at most 1, not {self.strength:g}")
        if not 0 <= self.blend <= 1:
            raise BadInput(f"blend: must be 0 to 1, not {self.blend:g}")

    def arguments(self, content: Path, style: Path, second: Path | None, target: Path) -> list[str]:
        """Of ``cyclegan stylize``."""
        if second is not None and self.blend == 1:
            style, second = second, None
        if self.blend == 0:
            second = None
        words = [str(content), str(style), str(target), "--method", self.method]
        if second is not None:
            shares = (f"{1 - self.blend:g}", f"{self.blend:g}")
            words += ["--more-styles", str(second), "--weights", *shares]
        if self.size is not None:
            words += ["--size", str(self.size)]
        if self.method == "fast":
            return [*words, "--strength", f"{self.strength:g}"]
        words += ["--style-weight", f"{STYLE_WEIGHT * self.strength:g}", "--steps", str(self.steps)]
        return [*words, "--every", str(EVERY)]


@dataclass(frozen=True)
class Sight:
    """A picture at work: ``made`` shows it so far, ``step`` of ``steps`` at a scale; ``done`` is the last."""

    made: Path | None
    step: int = 0
    steps: int = 0
    scale: str = ""
    done: bool = False


def stylized(
    content: Path,
    style: Path,
    second: Path | None,
    look: Look,
    folder: Path,
    limits: Limits,
    wanted: Callable[[], bool],
) -> Iterator[Sight]:
    """Stylize one picture into ``folder``; closing the iterator stops it, what was shown last stays.

    Raises:
        BadInput: a picture or a choice that cannot be, as the command says it.
        GivenUp: nobody waits any more.
    """
    given = [path for path in (content, style, second) if path is not None]
    for path in given:
        check_picture(path, limits)
    target = folder / content.name
    arguments = look.arguments(content, style, second, target)
    so_far = folder / f"{content.stem}-so-far.png"
    if look.method == "optimize":
        arguments += ["--preview", str(so_far)]
    process = subprocess.Popen(
        [sys.executable, "-m", "cyclegan", "stylize", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with closing(_lines(process, wanted)) as lines:
            last = ""
            for line in lines:
                step = _STEP.match(line)
                if step is None:
                    last = line or last
                    continue
                shown = so_far if so_far.is_file() else None
                yield Sight(shown, int(step[1]), int(step[2]), f"{step[3]} x {step[4]} pixels")
    finally:
        process.kill()
        status = process.wait()
        process.stderr.close()
    if status != 0:
        words = said_of(Exception(last.removeprefix("cyclegan stylize: ")), *given, target)
        raise (BadInput if status == 2 else Failed)(words or f"cyclegan stylize: ended with {status}")
    so_far.unlink(missing_ok=True)
    yield Sight(target, done=True)


def _lines(process: subprocess.Popen, wanted: Callable[[], bool]) -> Iterator[str]:
    """What it says, line by line until its end; looks now and then whether anybody waits."""
    said: SimpleQueue[str | None] = SimpleQueue()

    def read() -> None:
        for line in process.stderr:
            said.put(line.strip())
        said.put(None)

    reader = threading.Thread(target=read, name="app stylize", daemon=True)
    reader.start()
    try:
        while True:
            try:
                line = said.get(timeout=POLL_S)
            except Empty:
                if not wanted():
                    raise GivenUp from None
                continue
            if line is None:
                process.wait()
                return
            yield line
    finally:
        process.kill()
        reader.join()


def before_and_after(content: Path, made: Path, folder: Path, limits: Limits) -> tuple[Path, Path]:
    """Small pictures of both, of one size, as browsers show them."""
    paths = folder / "before.png", folder / "after.png"
    for path, source in zip(paths, (content, made), strict=True):
        preview(read_image(source, max_pixels=limits.pixels).pixels).save(path, compress_level=1)
    return paths


def copy_of(path: Path, folder: Path, number: int) -> Path:
    """A preview under a name of its own: a browser shows again what it knows under an old one."""
    return Path(shutil.copy(path, folder / f"{path.stem}-{number}{path.suffix}"))
