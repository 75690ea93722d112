"""Which part of an image each tile makes, and how much of the image it must see for that."""

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Tile:
    """Rows ``top`` to ``bottom`` and columns ``left`` to ``right`` (exclusive) of the result.

    The window is the part of the image that the network is given for them: the same, with a halo of
    neighbours where the image has them.
    """

    top: int
    bottom: int
    left: int
    right: int
    window_top: int
    window_bottom: int
    window_left: int
    window_right: int


def bands(height: int, width: int, tile: int, halo: int) -> Iterator[list[Tile]]:
    """The tiles of an image, row by row from the top, each row from the left.

    ``tile`` and ``halo`` are multiples of what the network needs, so that its strides fall on the same
    pixels in every window as in the whole image.
    """
    for top, bottom, window_top, window_bottom in _spans(height, tile, halo):
        yield [
            Tile(top, bottom, left, right, window_top, window_bottom, window_left, window_right)
            for left, right, window_left, window_right in _spans(width, tile, halo)
        ]


def _spans(length: int, tile: int, halo: int) -> Iterator[tuple[int, int, int, int]]:
    for start in range(0, length, tile):
        stop = min(start + tile, length)
        yield start, stop, max(0, start - halo), min(length, stop + halo)
