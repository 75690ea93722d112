"""Unpaired training samples: what is shown at a position is a function of the seed and the position.

A position counts the images of A shown since the run began, over all processes. An epoch walks all
of A once; B is walked in an order of its own, begun anew when it is used up.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.datasets.augment import Augment
from cyclegan.datasets.cards import datasets_root
from cyclegan.datasets.domain import Domain, spread
from cyclegan.datasets.scale import Scale, fit
from cyclegan.datasets.store import BadFiles, ImageStore, decode_all
from cyclegan.images import BadImage, read_image, to_tensor


class UnpairedImages(Dataset):
    """Samples by position: ``real_a`` and ``real_b``, each (C, size, size) in [-1, 1]."""

    def __init__(self, a: ImageStore, b: ImageStore, settings: TrainSettings) -> None:
        self.stores = {"A": a, "B": b}
        self.seed = settings.seed
        self.augment = Augment(settings)
        self._order = lru_cache(maxsize=4)(self._shuffled)

    def _shuffled(self, side: str, epoch: int) -> np.ndarray:
        return chance.permutation(self.seed, f"order {side}", epoch, len(self.stores[side]))

    def index(self, side: str, position: int) -> int:
        """Which image of a side is shown at a position."""
        epoch, offset = divmod(position, len(self.stores[side]))
        return int(self._order(side, epoch)[offset])

    def _stored(self, side: str, position: int) -> np.ndarray:
        return self.stores[side][self.index(side, position)]

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        a, b = (to_tensor(self.augment(self._stored(side, position), side, position)) for side in "AB")
        return {"real_a": a, "real_b": b, "position": position}

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        """A batch at once, for DataLoader: ``images`` (2 N, C, size, size), those of A before those of B.

        They are uint8 where all files are 8 bits deep.
        """
        shown = [(self._stored(side, position), side, position) for side in "AB" for position in positions]
        if self.augment.transforms is None and all(pixels.dtype == np.uint8 for pixels, *_ in shown):
            shape = (len(shown), shown[0][0].shape[2], self.augment.size, self.augment.size)
            planes = np.empty(shape, np.uint8)
            for (pixels, side, position), target in zip(shown, planes, strict=True):
                self.augment.crop(pixels, side, position, target)
            images = torch.from_numpy(planes)
        else:
            images = _batch([self.augment(*one) for one in shown])
        return {"images": images, "position": torch.tensor(positions)}

    def __getstate__(self) -> dict:
        # A cache of a bound method cannot travel to a spawned loader process.
        return {key: value for key, value in self.__dict__.items() if key != "_order"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=4)(self._shuffled)


def _batch(images: Sequence[np.ndarray]) -> Tensor:
    """(size, size, C) images as one tensor (N, C, size, size): uint8 if all are, else float in [-1, 1]."""
    if any(pixels.dtype != np.uint8 for pixels in images):
        return torch.stack([to_tensor(pixels) for pixels in images])
    height, width, channels = images[0].shape
    planes = np.empty((len(images), channels, height, width), np.uint8)
    for pixels, target in zip(images, planes, strict=True):
        target[...] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(planes)


def on_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """A loader's batch where it is needed: ``real_a``, ``real_b`` (N, C, H, W) in [-1, 1], ``position`` (N,).

    uint8 images become float32 there and not before. ``position`` stays where it is read, which a GPU's
    work would have to be waited for.
    """
    images = batch["images"].to(device, non_blocking=True)
    if images.dtype == torch.uint8:
        images = _scaled(images)
    real_a, real_b = images.chunk(2)
    return {"real_a": real_a, "real_b": real_b, "position": batch["position"]}


def _scaled(pixels: Tensor) -> Tensor:
    return pixels.float().mul_(2 / 255).sub_(1)  # as ``to_tensor``, bit for bit


class PositionSampler:
    """The positions of this process, batch after batch, from ``images_seen`` on and without end.

    Each part of a step is a run of successive positions of which process ``rank`` takes its slice, so
    that the global batches, and the order within them, are the same for any number of processes.
    """

    def __init__(self, batch_size: int, images_seen: int, rank: int, processes: int, parts: int = 1) -> None:
        self.per_part = batch_size // parts
        self.per_process = self.per_part // processes
        self.start, self.rank = images_seen, rank

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start + self.rank * self.per_process
        while True:
            yield list(range(first, first + self.per_process))
            first += self.per_part


def open_stores(
    domain: Domain, settings: TrainSettings, shared: bool = False
) -> tuple[ImageStore, ImageStore]:
    """Decode both sides at the size that training needs.

    Bad files are found here, before it starts, those among the held-out images that it will look at too.

    Args:
        shared: with other processes; decoded images are in a mapped file then, if there may be one, whose
            memory all of a machine have together, and that the second of them finds made.

    Raises:
        BadFiles: those that cannot be used, all of them in one message.
        BadInput: a side without any that can.
    """
    prepare = fit(Scale.of(settings))
    data = settings.data

    def load(path: Path) -> np.ndarray:
        try:
            return prepare(read_image(path, data.channels, data.background).pixels)
        except ValueError as error:
            raise BadImage(f"{path}: {error}") from error

    def complaint(path: Path) -> list[str]:
        try:
            read_image(path, data.channels, data.background)  # of any size: it is resized, or padded
        except BadImage as error:
            return [str(error)]
        return []

    shape = (settings.augment.preset, settings.size, settings.load_size)
    recipe = f"planes {shape} {data.channels} {data.background}"
    cache = datasets_root() / ".decoded"
    limit = data.memory_gib * 2**30
    if shared and _is_writable(cache):
        limit = 0
    stores: list[ImageStore] = []
    bad: list[str] = []
    for paths in (domain.train_a, domain.train_b):
        try:
            stores.append(decode_all(paths, load, recipe, cache, limit, data.skip_bad))
            limit -= stores[-1].in_memory
        except BadFiles as error:
            bad += error.found
    held_out: list[Path] = []
    if not data.skip_bad:  # else grids pass over them, and a translation or evaluation names them
        held_out = _looked_at(domain.test_a, settings) + _looked_at(domain.test_b, settings)
        with ThreadPoolExecutor() as pool:
            bad += chain.from_iterable(pool.map(complaint, held_out))
    if bad:
        raise BadFiles(bad, len(domain.train_a) + len(domain.train_b) + len(held_out))
    a, b = stores
    return a, b


def _is_writable(cache: Path) -> bool:
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(cache, os.W_OK)


def _looked_at(paths: list[Path], settings: TrainSettings) -> list[Path]:
    """Of a side's held-out files those that grids show, that are judged on, or translated at the end."""
    judged = settings.evaluation.images if settings.evaluation.every else 0
    shown, translated = spread(paths, settings.samples.count), paths[: settings.samples.translate]
    return sorted({*shown, *translated, *spread(paths, judged)})


def _whole(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """``__getitems__`` has put it together already."""
    return batch


def loader(
    dataset: UnpairedImages,
    sampler: PositionSampler,
    workers: int,
    pin: bool,
    begin_worker: Callable[[int], None] | None = None,
) -> Iterable[dict[str, Tensor]]:
    """Batches of this process, on the CPU, for ``on_device``: ``images`` (2 N, C, H, W), ``position`` (N,).

    ``begin_worker`` is called first in each of the loading processes.
    """
    if workers == 0 and not pin:
        # What DataLoader does around a batch takes a quarter of the batch's own time.
        return map(dataset.__getitems__, sampler)
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=_whole,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=begin_worker,
        # PyTorch seeds its workers from the global generator; ours draw nothing from it.
        generator=torch.Generator().manual_seed(0),
    )
