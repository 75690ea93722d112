"""Feature maps cut into tiles, some at a time, for convolutions by Winograd's products of matrices."""

import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from cyclegan.allocation import LARGEST_THRESHOLD


@dataclass(frozen=True)
class Tiles:
    """How the outputs of a convolution are cut into squares, each from ``side`` x ``side`` inputs."""

    images: int
    height: int
    width: int
    taps: int
    side: int

    @classmethod
    def over(cls, inputs: tuple[int, ...], taps: int, padding: int, side: int) -> "Tiles":
        height, width = (size + 2 * padding - taps + 1 for size in inputs[2:])
        return cls(inputs[0], height, width, taps, side)

    @property
    def step(self) -> int:
        """Height and width of a tile's outputs, in pixels."""
        return self.side + 1 - self.taps

    @property
    def points(self) -> int:
        """Products for each pair of channels that a tile takes."""
        return self.side**2

    @property
    def rows(self) -> int:
        return -(-self.height // self.step)

    @property
    def columns(self) -> int:
        return -(-self.width // self.step)

    @property
    def count(self) -> int:
        return self.images * self.rows * self.columns

    def saves_time(self, weight: tuple[int, ...], padding: int, around: float) -> bool:
        """Whether a convolution by (outputs, inputs, taps, taps) is faster by the tiles' products.

        By products for each pair of channels, with what going there and back was measured to cost in such
        products: with few channels, or few tiles to share the transformed weights, it is not worth it.

        Args:
            around: what a channel costs on the way there or back, in products.
        """
        if self.count < 1 or min(self.height, self.width) < 1 or padding >= self.taps:
            return False
        plain = self.images * self.height * self.width * self.taps**2
        share = 1 + around / weight[0] + around / weight[1] + 120 / self.count
        return self.points * self.count * share < 0.95 * plain

    def pieces(self, channels: int, itemsize: int, at_most: int) -> Iterator["Piece"]:
        """Some images, or some rows of tiles of one, at a time: ``at_most`` bytes of all their points."""
        wanted = max(1, at_most // (self.points * channels * itemsize))
        of_one = self.rows * self.columns
        images = max(1, wanted // of_one)
        rows = self.rows if wanted >= of_one else max(1, wanted // self.columns)
        for image in range(0, self.images, images):
            for row in range(0, self.rows, rows):
                yield Piece(
                    self,
                    slice(image, min(image + images, self.images)),
                    slice(row, min(row + rows, self.rows)),
                )


@dataclass(frozen=True)
class Piece:
    """Some rows of tiles of some images, and the memory order that all is done in: (N, H, W, C)."""

    tiles: Tiles
    images: slice
    rows: slice

    @property
    def top(self) -> int:
        return self.rows.start * self.tiles.step

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, and rows and columns of tiles of each."""
        images, rows = (part.stop - part.start for part in (self.images, self.rows))
        return images, rows, self.tiles.columns

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    def of(self, pixels: Tensor, border: int) -> Tensor:
        """The piece of (N, H, W, C) that tiles fill, with ``border`` of its neighbours below; a view."""
        return pixels[self.images, self.top : self.rows.stop * self.tiles.step + border]

    def empty(self, like: Tensor, channels: int, border: int) -> Tensor:
        """Scratch memory for all pixels of the piece's tiles, with ``border`` of their neighbours."""
        images, *tiles = self.shape
        return scratch("pixels", (images, *(n * self.tiles.step + border for n in tiles), channels), like)

    def cut(self, x: Tensor, border: int, padding: int) -> Tensor:
        """The pixels of (N, C, H, W) that the piece's tiles see, with zeros where there are none."""
        pixels = self.empty(x, x.shape[1], border)
        inside, theirs = self.overlap(pixels, x, padding)
        if inside.shape != pixels.shape:
            pixels.zero_()
        inside.copy_(theirs)
        return pixels

    def overlap(self, pixels: Tensor, x: Tensor, padding: int) -> tuple[Tensor, Tensor]:
        """The pixels that ``x`` has, and those of ``x`` that the piece has, as views of (N, h, w, C)."""
        above = max(0, padding - self.top)
        first = max(0, self.top - padding)
        height = min(pixels.shape[1] - above, x.shape[2] - first)
        width = min(pixels.shape[2] - padding, x.shape[3])
        theirs = x[self.images, :, first : first + height, :width].permute(0, 2, 3, 1)
        return pixels[:, above : above + height, padding : padding + width], theirs

    def windows(self, pixels: Tensor, side: int) -> Tensor:
        """The tiles' pixels by their place, (side, side, images, rows, columns, C), a view."""
        step, (image, row, column, channel) = self.tiles.step, pixels.stride()
        return pixels.as_strided(
            (side, side, *self.shape, pixels.shape[3]),
            (row, column, image, step * row, step * column, channel),
        )


class _Scratch(threading.local):
    """A thread's memory for what lives within one call, kept from call to call.

    Had anew each time and freed again, it would leave holes between what is kept for the backward pass, and
    a training would take a quarter more memory than it fills.
    """

    def __init__(self) -> None:
        self.held: dict[tuple[str, torch.dtype], Tensor] = {}

    def __call__(
        self, name: str, shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None
    ) -> Tensor:
        """Contiguous, of any content, until the same name is asked for again."""
        count, dtype = math.prod(shape), dtype or like.dtype
        if count * dtype.itemsize > LARGEST_THRESHOLD:  # mapped by itself, it leaves no hole
            return like.new_empty(shape, dtype=dtype)
        key = name, dtype
        if key not in self.held or self.held[key].numel() < count:
            with torch.inference_mode(False):  # else it could not be written to in a training
                self.held[key] = torch.empty(count, dtype=dtype)
        return self.held[key][:count].view(shape)


scratch = _Scratch()
