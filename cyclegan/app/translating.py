"""From an uploaded picture to its translation, by the steps of `cyclegan translate`."""

import shutil
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from cyclegan.app.engine import Engine, GivenUp, Say
from cyclegan.app.limits import Limits, check_picture, said_of
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.images import replace_file, resize, to_pil
from cyclegan.translation.options import FolderOptions, Tiling
from cyclegan.translation.plan import plan

PREVIEW_SIDE = 1024
AHEAD = 4  # pictures of one request that are read, translated and written at once
TILINGS = ("auto", "exact", "dense", "naive", "off")


@dataclass(frozen=True)
class Wish:
    """How a picture is to be translated: the options of the command, and ``tiling`` in a word.

    ``auto`` cuts what memory cannot hold, ``off`` nothing; the others cut each picture, their way.
    """

    size: int | None = None
    tiling: str = "auto"
    format: str | None = None
    quality: int = 95

    def options(self) -> FolderOptions:
        if self.format not in (None, "jpg", "png", "webp", "tiff"):
            raise BadInput(f"format: must be jpg, png, webp or tiff, not {self.format}")
        return FolderOptions(self.size, self.format, self.quality)

    def cut(self) -> Tiling:
        if self.tiling not in TILINGS:
            raise BadInput(f"tiling: must be {', '.join(TILINGS)}, not {self.tiling}")
        if self.tiling in ("auto", "off"):
            return Tiling(self.tiling)
        return Tiling("auto", self.tiling)


@dataclass(frozen=True)
class Done:
    """A picture's fate: its translation and small pictures of before and after, or why there is none."""

    name: str
    target: Path | None = None
    before: Path | None = None
    after: Path | None = None
    error: str | None = None


class Translating:
    """What one request translates with.

    Args:
        wanted: whether somebody still waits for it.
        seen: whether small pictures of before and after are to be made, for a page.
    """

    def __init__(
        self,
        engine: Engine,
        generator: Path,
        wish: Wish,
        limits: Limits,
        wanted: Callable[[], bool],
        seen: bool = True,
    ) -> None:
        self.seen = seen
        self.engine, self.wish, self.limits, self.wanted = engine, wish, limits, wanted
        self.options = wish.options()
        self.translator = engine.translator(generator, wish.cut())

    def one(self, source: Path, name: str, folder: Path, say: Say) -> Done:
        """Translate one uploaded file into ``folder``.

        Args:
            name: what it is called there, with ``/`` for folders.
            say: told what is being done.

        Raises:
            BadInput: it cannot be read, translated or written.
            GivenUp: nobody waits any more.
        """
        height, width = check_picture(source, self.limits)
        # The way of `cyclegan translate` from an input's name to its output's.
        named = Path(name)
        target = folder / named.parent / plan(source, folder, self.wish.format).names[0][1]
        target = target.with_name(named.stem + target.suffix)
        say(0.0, "waiting for its turn")
        with self.engine.room.of(height * width, self.wanted):
            try:
                say(0.0, "reading")
                picture = self.translator.read(source)
                digest = sha256_of(source)
                say(0.0, "waiting for the network")
                pixels = self.engine.translate(self.translator, picture, self.wish.size, self.wanted, say)
                say(1.0, "writing")
                data = self.translator.encode(source, target, digest, pixels, picture, self.options)
            except (OSError, ValueError) as error:  # such as a WebP of more than 16,383 pixels a side
                raise BadInput(f"{name}: cannot be written ({said_of(error, source, target)})") from error
            except BadInput as error:
                raise BadInput(said_of(error, source, target)) from error
            replace_file(target, data)
            before, after = _previews(folder, picture.pixels, pixels) if self.seen else (None, None)
        return Done(name, target, before, after)

    def many(self, sources: Sequence[tuple[Path, str]], folder: Path) -> Iterator[Done]:
        """Translate files, in their order; what cannot be is said of that one, and the others go on."""
        pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="app pictures")
        try:
            waiting = [
                pool.submit(self._one_of_many, *each, folder / str(number))
                for number, each in enumerate(sources)
            ]
            for future in waiting:
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _one_of_many(self, source: Path, name: str, folder: Path) -> Done:
        if not self.wanted():
            raise GivenUp
        try:
            return self.one(source, name, folder, lambda share, what: None)
        except BadInput as error:
            return Done(name, error=str(error))


def zipped(done: Sequence[Done], target: Path) -> Path:
    """All translations in one zip, stored as they are, for pictures do not shrink further."""
    partial = target.with_suffix(".part")
    taken: set[str] = set()
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        for each in done:
            if each.target is None:
                continue
            name = Path(each.name).with_suffix(each.target.suffix).as_posix()
            while name in taken:  # a.jpg and a.png, both written as png
                path = Path(name)
                name = path.with_name(f"{path.stem}-2{path.suffix}").as_posix()
            taken.add(name)
            archive.write(each.target, name)
    partial.replace(target)
    return target


def _previews(folder: Path, before: np.ndarray, after: np.ndarray) -> tuple[Path, Path]:
    """Both as browsers show them: 8 bits, not larger than a screen, of one size."""
    paths = folder / "before.png", folder / "after.png"
    for path, pixels in zip(paths, (before, after), strict=True):
        preview(pixels).save(path, compress_level=1)
    return paths


def preview(pixels: np.ndarray, side: int = PREVIEW_SIDE) -> Image.Image:
    """(H, W, C) as a small 8-bit picture; what is small already keeps its pixels."""
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    small = resize(pixels, max(1, round(height * scale)), max(1, round(width * scale)))
    return to_pil(np.rint(small / 257).astype(np.uint8) if small.dtype == np.uint16 else small)


def remove(folder: Path) -> None:
    """What a request that came to nothing has written."""
    shutil.rmtree(folder, ignore_errors=True)
