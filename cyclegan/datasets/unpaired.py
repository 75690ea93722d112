"""Unpaired training samples: what is shown at a position is a function of the seed and the position.

A position counts the images of A shown since the run began, over all processes. An epoch walks all
of A once; B is walked in an order of its own, begun anew when it is used up.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.datasets.augment import Augment, fit
from cyclegan.datasets.cards import datasets_root
from cyclegan.datasets.domain import Domain
from cyclegan.datasets.store import ImageStore, decode_all
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

    def _image(self, side: str, position: int) -> Tensor:
        pixels = self.stores[side][self.index(side, position)]
        return to_tensor(self.augment(pixels, side, position))

    def __getitem__(self, position: int) -> dict[str, Tensor | int]:
        return {
            "real_a": self._image("A", position),
            "real_b": self._image("B", position),
            "position": position,
        }

    def __getstate__(self) -> dict:
        # A cache of a bound method cannot travel to a spawned loader process.
        return {key: value for key, value in self.__dict__.items() if key != "_order"}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._order = lru_cache(maxsize=4)(self._shuffled)


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


def open_stores(domain: Domain, settings: TrainSettings) -> tuple[ImageStore, ImageStore]:
    """Decode both sides at the size that training needs; bad files are found here, before it starts."""
    prepare = fit(settings)
    data = settings.data

    def load(path: Path) -> np.ndarray:
        try:
            return prepare(read_image(path, data.channels, data.background).pixels)
        except ValueError as error:
            raise BadImage(f"{path}: {error}") from error

    shape = (settings.augment.preset, settings.size, settings.load_size)
    recipe = f"{shape} {data.channels} {data.background}"
    cache = datasets_root() / ".decoded"
    limit = data.memory_gib * 2**30 / 2  # half for each side
    a, b = (
        decode_all(paths, load, recipe, cache, limit, data.skip_bad)
        for paths in (domain.train_a, domain.train_b)
    )
    return a, b


def loader(
    dataset: UnpairedImages,
    sampler: PositionSampler,
    workers: int,
    pin: bool,
    begin_worker: Callable[[int], None] | None = None,
) -> DataLoader:
    """Batches of this process, on the CPU: ``real_a``, ``real_b`` (N, C, H, W) and ``position`` (N,).

    ``begin_worker`` is called first in each of the loading processes.
    """
    return DataLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=workers,
        pin_memory=pin,
        persistent_workers=workers > 0,
        worker_init_fn=begin_worker,
        # PyTorch seeds its workers from the global generator; ours draw nothing from it.
        generator=torch.Generator().manual_seed(0),
    )
