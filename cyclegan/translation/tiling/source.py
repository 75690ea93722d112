"""An image that is read by regions, in memory or on disk."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cyclegan.images import resize


class Source(Protocol):
    """Pixels (height, width, channels), uint8 or uint16, read a region at a time."""

    height: int
    width: int
    dtype: np.dtype

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray: ...


@dataclass(frozen=True)
class ArraySource:
    """An image that is in memory as it is."""

    pixels: np.ndarray

    @property
    def height(self) -> int:
        return self.pixels.shape[0]

    @property
    def width(self) -> int:
        return self.pixels.shape[1]

    @property
    def dtype(self) -> np.dtype:
        return self.pixels.dtype

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        return self.pixels[top:bottom, left:right]


def overview(source: Source, side: int) -> np.ndarray:
    """The whole image, squeezed by averages to less than twice ``side`` on each side, (h, w, C)."""
    down, across = (max(1, length // side) for length in (source.height, source.width))
    columns = -(-source.width // across)
    rows = [
        resize(source.read(top, min(top + down, source.height), 0, source.width), 1, columns)
        for top in range(0, source.height, down)
    ]
    return np.concatenate(rows)


def assembled(bands: Iterable[np.ndarray], like: np.ndarray) -> np.ndarray:
    """Bands of rows from the top as one image, of the shape and dtype of ``like``."""
    made = np.empty_like(like)
    top = 0
    for band in bands:
        made[top : top + len(band)] = band
        top += len(band)
    return made
