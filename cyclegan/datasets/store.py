"""Images decoded once, at the size they are needed, then kept: in memory, or past a limit on disk."""

import contextlib
import hashlib
import json
import os
import socket
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from rich.progress import Progress

from cyclegan.errors import BadInput
from cyclegan.images import BadImage

Load = Callable[[Path], np.ndarray]
WAITING_BYTES = 256 * 2**20  # of decoded images that no limit of memory counts yet


@dataclass(frozen=True)
class ImageStore:
    """Decoded images by index, each (H, W, C) at the depth of its file, read-only views.

    In memory a channel is a plane of its own, as networks take it: cutting a batch out is copying rows.
    """

    paths: list[Path]
    images: Sequence[np.ndarray]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.images[index]

    @property
    def in_memory(self) -> int:
        """Bytes that this process keeps for itself."""
        return 0 if isinstance(self.images, _MappedImages) else sum(image.nbytes for image in self.images)


class BadFiles(BadInput):
    """Files that cannot be used, of so many that were looked at: ``found`` says of each what is wrong."""

    def __init__(self, found: list[str], total: int) -> None:
        listed = "".join(f"\n  {each}" for each in found)
        super().__init__(
            f"{len(found)} of {total} files cannot be used; mend or remove them, or leave them out with "
            f"--data.skip-bad:{listed}"
        )
        self.found = found


def decode_all(
    paths: list[Path], load: Load, recipe: str, cache: Path, limit: float, skip_bad: bool = False
) -> ImageStore:
    """Decode every file, so that training never meets one that cannot be read.

    Args:
        paths: the files of one side.
        load: reads one file at the size that training needs; raises BadImage.
        recipe: says what ``load`` does, to know the cached images of another size from these.
        cache: folder for what does not fit into memory; reused by later runs on the same files.
        limit: bytes of decoded images to keep in memory.
        skip_bad: leave out the files that cannot be used.

    Raises:
        BadFiles: files that cannot be used, all of them in one message.
        BadInput: all of them are left out, and none remains.
    """
    key = _key(paths, recipe)
    known = _open_cached(cache, key)
    if known is not None and (skip_bad or len(known) == len(paths)):
        return known
    good: list[Path] = []
    images: list[np.ndarray] = []
    bad: list[str] = []
    spill: _Spill | None = None
    size = 0
    try:
        for path, result in zip(paths, _decode(paths, load), strict=True):
            if isinstance(result, BadImage):
                bad.append(str(result))
                continue
            good.append(path)
            size += result.nbytes
            if spill is None and size > limit:
                spill = _Spill(cache, key)
                for image in images:
                    spill.add(image)
                images.clear()
            if spill is None:
                images.append(_planes(result).transpose(1, 2, 0))
            else:
                spill.add(result)
        if bad and not skip_bad:
            raise BadFiles(bad, len(paths))
        if not good:
            raise BadInput(f"{paths[0].parent}: none of the {len(paths)} files can be used: {bad[0]}")
        if bad:
            print(f"Left out {len(bad)} files that cannot be used: " + "; ".join(bad), file=sys.stderr)
        return ImageStore(good, images) if spill is None else spill.finish(good)
    finally:
        if spill is not None:
            spill.discard()


def _decode(paths: list[Path], load: Load) -> Iterator[np.ndarray | BadImage]:
    """Results in order; threads serve, for the decoders release the interpreter's lock."""

    def attempt(path: Path) -> np.ndarray | BadImage:
        try:
            return load(path)
        except BadImage as error:
            return error

    threads = os.cpu_count() or 1
    pending = iter(paths)
    with (
        ThreadPoolExecutor(threads) as pool,
        Progress(transient=True, disable=not sys.stderr.isatty()) as bar,
    ):
        task = bar.add_task(f"Decoding {paths[0].parent}", total=len(paths))
        window: deque[Future[np.ndarray | BadImage]] = deque()
        while True:
            # Bounded, so that a slow disk cache is not outrun by the decoders: whole photographs, which the
            # preset "crop" keeps, may be of 36 MB each.
            while len(window) < 2 * threads and (len(window) < threads or _waiting(window) < WAITING_BYTES):
                more = [pool.submit(attempt, path) for path in islice(pending, 1)]
                window += more
                if not more:
                    break
            if not window:
                return
            result = window.popleft().result()
            bar.advance(task)
            yield result


def _waiting(window: Iterable[Future[np.ndarray | BadImage]]) -> int:
    """Bytes of images that are decoded and not taken yet."""
    done = (future.result() for future in window if future.done())
    return sum(result.nbytes for result in done if isinstance(result, np.ndarray))


def _key(paths: list[Path], recipe: str) -> str:
    digest = hashlib.blake2b(recipe.encode(), digest_size=12)
    for path in paths:
        # A name need not be UTF-8; a link that leads nowhere is told of when it is read.
        digest.update(os.fsencode(os.path.realpath(path)))
        with contextlib.suppress(OSError):
            status = path.stat()
            digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _planes(image: np.ndarray) -> np.ndarray:
    """(H, W, C) as (C, H, W), one after the other in memory."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


class _Spill:
    """Images one after the other in a file, with an index beside it; whole or not at all."""

    def __init__(self, cache: Path, key: str) -> None:
        cache.mkdir(parents=True, exist_ok=True)
        self.cache, self.key = cache, key
        self.mine = f"{key}.{socket.gethostname()}.{os.getpid()}"  # machines may share the folder
        self.partial = cache / f"{self.mine}.part"
        self.file = self.partial.open("wb")
        self.index: list[tuple[int, tuple[int, ...], str]] = []

    def add(self, image: np.ndarray) -> None:
        self.index.append((self.file.tell(), image.shape, image.dtype.str))
        self.file.write(_planes(image).data)

    def finish(self, paths: list[Path]) -> ImageStore:
        self.file.close()
        self.partial.replace(self.cache / f"{self.key}.bin")
        entry = {"paths": [str(path) for path in paths], "index": self.index}
        index = self.cache / f"{self.mine}.json.part"
        index.write_text(json.dumps(entry))
        index.replace(self.cache / f"{self.key}.json")
        store = _open_cached(self.cache, self.key)
        assert store is not None
        return store

    def discard(self) -> None:
        self.file.close()
        self.partial.unlink(missing_ok=True)


class _MappedImages(Sequence[np.ndarray]):
    """Views into a memory-mapped file; opened again in each loader process."""

    def __init__(self, path: Path, index: list[tuple[int, list[int], str]]) -> None:
        self.path, self.index = path, index
        self.data = np.memmap(path, np.uint8, mode="r")

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, item: int) -> np.ndarray:  # type: ignore[override]  # slices are not needed
        start, shape, dtype = self.index[item]
        height, width, channels = shape
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        planes = self.data[start : start + size].view(dtype).reshape(channels, height, width)
        return planes.transpose(1, 2, 0)

    def __reduce__(self) -> tuple:
        return _MappedImages, (self.path, self.index)


def _open_cached(cache: Path, key: str) -> ImageStore | None:
    index = cache / f"{key}.json"
    if not index.exists() or not (cache / f"{key}.bin").exists():
        return None
    entry = json.loads(index.read_text())
    return ImageStore([Path(p) for p in entry["paths"]], _MappedImages(cache / f"{key}.bin", entry["index"]))
