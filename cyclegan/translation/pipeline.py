"""Decode, network, encode: each at work on other images while the next ones wait, few enough for memory."""

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cyclegan.errors import BadInput, out_of_memory
from cyclegan.files import replace_file
from cyclegan.images import TIFF_SUFFIXES, BadImage, Picture, image_size
from cyclegan.translation.manifest import FileState
from cyclegan.translation.options import NEEDS_TORCH, FolderOptions
from cyclegan.translation.tiling.tiff import SLIDE_PIXELS, slide_size

if TYPE_CHECKING:
    from cyclegan.translation.translator import Translator

IN_FLIGHT_PIXELS = 1 << 25  # decoded, not yet written: some 30 bytes each, so about 1 GiB
BATCH_PIXELS = 1 << 22  # through the network at once: 64 images of 256 px, one of 2048 px
WINDOW_BATCHES = 4  # images of one shape are looked for in as many consecutive files as fill these
_TOO_LARGE = "does not fit into memory; give it smaller, with --size"
# What is wrong with one output's name or place; all else (a full disk, no permission) concerns them all.
_ONE_FILE_ONLY = {errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EILSEQ}


@dataclass(frozen=True)
class Job:
    """One file; ``wanted`` is False where it is done and is computed again to keep others company."""

    index: int
    source: Path
    target: Path
    wanted: bool = True


@dataclass(frozen=True)
class Translated:
    """One file's fate: ``error`` says why it was not translated, ``kept`` that it was done before."""

    source: Path
    target: Path
    error: str | None = None
    kept: bool = False


@dataclass(frozen=True)
class Read:
    """A file as it was read, without ``picture`` when it could not be.

    ``tensor`` is what the network takes; what goes in tiles has none, and a slide is not read yet.
    """

    state: FileState | None = None
    picture: Picture | None = None
    tensor: Tensor | None = None
    error: str | None = None
    is_slide: bool = False


@dataclass(frozen=True)
class Hooks:
    """What is done beside an output that is about to take its name, and for one that failed.

    ``written`` gets the job, the input's state and the whole output under its temporary name.
    """

    written: Callable[[Job, FileState, Path], None]
    failed: Callable[[Job, str, FileState | None], None]


def default_batch_size(device: torch.device) -> int:
    """On CPUs a batch is no faster than its images one by one; a GPU is not filled by one."""
    return 1 if device.type == "cpu" else 16


def workers_for(device: torch.device, processes: int = 1) -> int:
    """Threads for decoding, and as many for encoding; on CPUs the network wants the cores."""
    if device.type == "cpu":
        return 2
    return min(8, max(2, (os.cpu_count() or 2) // processes))


def run_jobs(
    translator: "Translator",
    windows: Iterable[Sequence[Job]],
    options: FolderOptions,
    hooks: Hooks | None = None,
    processes: int = 1,
) -> Generator[tuple[Job, Translated], None, None]:
    """Translate what is wanted in each window; closing it ends its threads. Results come as they are done.

    Args:
        windows: stretches of the file list; images of one shape within one are batched.
        processes: how many of this machine's processes share its cores.

    Raises:
        BadInput: an output cannot be written, and so no other could.
    """
    workers = workers_for(translator.device, processes)
    batch_size = options.batch_size or default_batch_size(translator.device)
    readers, writers, lookers = (ThreadPoolExecutor(workers) for _ in range(3))
    flow = _Flow(translator, options, hooks, readers, writers, ahead=2 * workers + batch_size)
    try:
        for window, shapes in _shapes_ahead(windows, lookers):
            yield from flow.take(window, shapes, batch_size)
        yield from flow.end()
    finally:
        for pool in (lookers, readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)


Shape = tuple[int, int] | str  # height and width, or why there is none


def _shapes_ahead(
    windows: Iterable[Sequence[Job]], pool: ThreadPoolExecutor
) -> Iterator[tuple[Sequence[Job], list[Future[Shape]]]]:
    """Look into the headers of one window while the one before it is at work."""
    ahead: deque[tuple[Sequence[Job], list[Future[Shape]]]] = deque()
    for window in windows:
        ahead.append((window, [pool.submit(_shape, job.source) for job in window]))
        if len(ahead) > 1:
            yield ahead.popleft()
    yield from ahead


def _shape(path: Path) -> Shape:
    try:
        # A slide does not fit into memory, and its header alone is read.
        is_large = path.suffix.lower() in TIFF_SUFFIXES and path.stat().st_size > SLIDE_PIXELS
        return slide_size(path) if is_large else image_size(path)
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})"
    except BadImage as error:
        return str(error)


@dataclass(frozen=True)
class _Batch:
    """Images for the network at once, and the pixels that each holds in memory."""

    jobs: list[Job]
    pixels: list[int]
    is_slide: bool = False


class _Flow:
    """The images on their way, counted in pixels."""

    def __init__(
        self,
        translator: "Translator",
        options: FolderOptions,
        hooks: Hooks | None,
        readers: ThreadPoolExecutor,
        writers: ThreadPoolExecutor,
        ahead: int,
    ) -> None:
        self.translator, self.options, self.hooks = translator, options, hooks
        self.readers, self.writers, self.ahead = readers, writers, ahead
        self.reading: deque[tuple[_Batch, list[Future[Read]]]] = deque()
        self.writing: deque[tuple[Job, int, Future[Translated]]] = deque()
        self.pixels = 0

    def take(
        self, window: Sequence[Job], shapes: Sequence[Future[Shape]], batch_size: int
    ) -> Iterator[tuple[Job, Translated]]:
        """Start on a window's files, once there is room for them."""
        known: list[tuple[Job, tuple[int, int]]] = []
        for job, future in zip(window, shapes, strict=True):
            shape = future.result()
            if not isinstance(shape, str):
                known.append((job, shape))
            elif job.wanted:
                yield job, self._failed(job, shape, _state(job.source))
        cuts = self.options.size is None and not self.translator.makes_small
        for batch in _batches(known, self.options.size, batch_size, cuts):
            coming = sum(batch.pixels)
            while self.reading and (self.pixels + coming > IN_FLIGHT_PIXELS or self._reading() > self.ahead):
                yield from self._compute()
            while self.writing and self.pixels + coming > IN_FLIGHT_PIXELS:
                yield self._collect()
            self.pixels += coming
            reads = [self.readers.submit(self._read, job, batch.is_slide) for job in batch.jobs]
            self.reading.append((batch, reads))

    def end(self) -> Iterator[tuple[Job, Translated]]:
        while self.reading:
            yield from self._compute()
        while self.writing:
            yield self._collect()

    def _reading(self) -> int:
        return sum(len(batch.jobs) for batch, _ in self.reading)

    def _read(self, job: Job, is_slide: bool) -> Read:
        """In a reader's thread."""
        state = None
        try:
            state = FileState.of(job.source)
            if is_slide:
                return Read(state, is_slide=True)
            picture = self.translator.read(job.source)
            if self.options.size is None and self.translator.goes_in_tiles(*picture.pixels.shape[:2]):
                if not self.translator.has_tiles:
                    return Read(state, error=f"{job.source}: {NEEDS_TORCH}")
                return Read(state, picture)
            return Read(state, picture, self.translator.prepare(picture, self.options.size))
        except BadImage as error:
            return Read(state, error=str(error))
        except BadInput as error:
            return Read(state, error=f"{job.source}: {error}")
        except OSError as error:
            return Read(state, error=f"{job.source}: cannot be read ({error.strerror})")
        # Whatever else a decoder makes of strange bytes: one file shall not stop the others.
        except Exception as error:
            return Read(state, error=f"{job.source}: cannot be decoded ({type(error).__name__}: {error})")

    def _compute(self) -> Iterator[tuple[Job, Translated]]:
        """The oldest batch through the network and on to the writers; gives what they have finished."""
        batch, futures = self.reading.popleft()
        reads = [future.result() for future in futures]
        good = [i for i, read in enumerate(reads) if read.tensor is not None]
        results: dict[int, Tensor | np.ndarray] = {}
        if any(batch.jobs[i].wanted for i in good):
            with _full_memory_is_one_files_trouble():
                results.update(zip(good, self._network([reads[i].tensor for i in good]), strict=True))
        for i, (job, read) in enumerate(zip(batch.jobs, reads, strict=True)):
            if job.wanted and read.is_slide:
                self.pixels -= batch.pixels[i]
                yield job, self._slide(job, read)
                continue
            if job.wanted and read.picture is not None and read.tensor is None:
                with _full_memory_is_one_files_trouble():
                    results[i] = self.translator.in_tiles(read.picture.pixels)
            if job.wanted and i in results:
                future = self.writers.submit(self._write, job, read, results[i])
                self.writing.append((job, batch.pixels[i], future))
                continue
            self.pixels -= batch.pixels[i]
            if job.wanted:
                yield job, self._failed(job, read.error or f"{job.source}: {self._too_large}", read.state)
        while self.writing and self.writing[0][2].done():
            yield self._collect()

    @property
    def _too_large(self) -> str:
        tiler = self.translator.tiler
        cuts = tiler is not None and not tiler.whole_only
        return f"{_TOO_LARGE}, or in smaller tiles with --tile" if cuts else _TOO_LARGE

    def _network(self, tensors: list[Tensor | None]) -> list[Tensor]:
        return list(self.translator.network_on(torch.stack([t for t in tensors if t is not None])))

    def _slide(self, job: Job, read: Read) -> Translated:
        """Read, translated and written by regions."""
        assert read.state is not None
        try:
            announce = self._announce(job, read.state)
            with _full_memory_is_one_files_trouble():
                self.translator.slide(job.source, job.target, read.state.sha256, self.options, announce)
                return Translated(job.source, job.target)
        except BadImage as error:
            return self._failed(job, str(error), read.state)
        except OSError as error:
            return self._unwritable(job, error, read.state)
        return self._failed(job, f"{job.source}: {self._too_large}", read.state)

    def _write(self, job: Job, read: Read, result: Tensor | np.ndarray) -> Translated:
        """In a writer's thread."""
        assert read.picture is not None and read.state is not None
        translator = self.translator
        try:
            whole = isinstance(result, Tensor)
            pixels = translator.finish(result, read.picture) if whole else result
            data = translator.encode(
                job.source, job.target, read.state.sha256, pixels, read.picture, self.options
            )
        except BadImage as error:
            return self._failed(job, str(error), read.state)
        except (OSError, ValueError) as error:  # such as a WebP of more than 16,383 pixels a side
            kind = job.target.suffix.lower()
            problem = f"{job.source}: cannot be written as a {kind} file ({error})"
            return self._failed(job, problem, read.state)
        try:
            replace_file(job.target, data, self._announce(job, read.state))
        except OSError as error:
            return self._unwritable(job, error, read.state)
        return Translated(job.source, job.target)

    def _unwritable(self, job: Job, error: OSError, state: FileState | None) -> Translated:
        """One file's trouble, or that of all: then it ends here."""
        problem = f"{job.target}: cannot be written ({error.strerror})"
        if error.errno in _ONE_FILE_ONLY:
            return self._failed(job, problem, state)
        raise BadInput(f"{problem}; what is done is kept, the same command goes on from there") from error

    def _announce(self, job: Job, state: FileState | None) -> Callable[[Path], None] | None:
        hooks = self.hooks
        if hooks is None or state is None:
            return None
        return lambda partial: hooks.written(job, state, partial)

    def _failed(self, job: Job, error: str, state: FileState | None) -> Translated:
        if self.hooks is not None:
            self.hooks.failed(job, error, state)
        return Translated(job.source, job.target, error)

    def _collect(self) -> tuple[Job, Translated]:
        job, pixels, future = self.writing.popleft()
        self.pixels -= pixels
        return job, future.result()


def _batches(
    known: Sequence[tuple[Job, tuple[int, int]]], side: int | None, batch_size: int, cuts: bool
) -> Iterator[_Batch]:
    """Images of one shape, as the network sees them, together; batches with nothing wanted are left out.

    What comes together depends on the files alone, not on what is done already (``Share.windows``).
    """
    by_shape: dict[tuple[int, int], list[tuple[Job, int]]] = {}
    for job, (height, width) in known:
        if cuts and _is_slide(job, (height, width)):
            if job.wanted:
                yield _Batch([job], [min(height * width, IN_FLIGHT_PIXELS)], is_slide=True)
            continue
        shape = (height, width) if side is None else (side, side)
        by_shape.setdefault(shape, []).append((job, max(height * width, shape[0] * shape[1])))
    for (height, width), members in by_shape.items():
        count = max(1, min(batch_size, BATCH_PIXELS // (height * width)))
        for start in range(0, len(members), count):
            some = members[start : start + count]
            if any(job.wanted for job, _ in some):
                yield _Batch([job for job, _ in some], [pixels for _, pixels in some])


def _is_slide(job: Job, shape: tuple[int, int]) -> bool:
    return job.source.suffix.lower() in TIFF_SUFFIXES and shape[0] * shape[1] > SLIDE_PIXELS


def _state(path: Path) -> FileState | None:
    try:
        return FileState.of(path)
    except OSError:
        return None


@contextlib.contextmanager
def _full_memory_is_one_files_trouble() -> Iterator[None]:
    """What memory cannot hold is left without a result, and the next file has its turn."""
    try:
        yield
    except Exception as error:
        if not out_of_memory(error):
            raise
