"""Tile by tile: with statistics that all tiles share (dense), or each tile on its own (naive)."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan.chance import rng
from cyclegan.errors import BadInput
from cyclegan.images import from_tensor, to_tensor
from cyclegan.networks.inference import pad, translate
from cyclegan.translation.tiling.geometry import Tile, bands
from cyclegan.translation.tiling.source import Source
from cyclegan.translation.tiling.statistics import depends_on_all_pixels, with_statistics_of

PATCH = 128  # side of the patches that statistics are gathered from: many small ones know more than few large
AT_ONCE = 4  # patches that a layer computes together


def naive_bands(network: nn.Module, source: Source, tile: int, multiple_of: int) -> Iterator[np.ndarray]:
    """Each tile as an image of its own: what instance norm makes of that shows at the borders.

    Yields:
        Rows of tiles from the top, (rows, W, C) of the source's dtype.
    """
    yield from _bands(network, source, tile, 0, multiple_of)


def dense_bands(
    network: nn.Module, source: Source, tile: int, multiple_of: int, sample_pixels: int
) -> Iterator[np.ndarray]:
    """One pass over tiles that agree: shared statistics, and a halo as wide as the network's reach.

    With the statistics fixed, a pixel depends on its neighbours within ``reach`` alone; each tile sees
    them, so that its pixels are those of the whole image under the same statistics, and no seam is left.
    The statistics come from patches dense over the image, at its own resolution; a thumbnail (URST,
    Chen et al. 2022) has other edges and other contrast than the image it stands for.

    Args:
        network: in evaluation mode; its ``reach`` says how far an output pixel looks.
        tile: height and width of what each tile yields, a multiple of ``multiple_of``.
        sample_pixels: how many pixels the statistics are gathered from; their maps are in memory at once.

    Yields:
        Rows of tiles from the top, (rows, W, C) of the source's dtype.

    Raises:
        BadInput: the network has no bounded reach.
    """
    reach = getattr(network, "reach", None)
    if reach is None:
        raise BadInput(
            f"--tiling dense: {type(network).__name__} lets a pixel depend on the whole image in more ways "
            "than its norm's statistics; use --tiling exact"
        )
    if depends_on_all_pixels(network):
        patches = sample_patches(source, sample_pixels, multiple_of)
        network = with_statistics_of(
            network, (pad(_on_device(network, part), multiple_of) for part in patches)
        )
    yield from _bands(network, source, tile, -(-reach // multiple_of) * multiple_of, multiple_of)


def sample_patches(source: Source, pixels: int, multiple_of: int) -> Iterator[Tensor]:
    """(N, C, h, w) in [-1, 1] each: patches from all over the image, about ``pixels`` pixels in all.

    The image is divided into as many cells; each gives one patch from a place that chance picks, for places
    at equal distances could keep time with a pattern in the image.
    """
    height, width = (_patch_side(length, multiple_of) for length in (source.height, source.width))
    count = max(1, pixels // (height * width))
    # Cells are as near to squares as the count allows, and no smaller than the patches.
    rows = max(1, min(source.height // height, round((count * source.height / source.width) ** 0.5)))
    columns = max(1, min(source.width // width, count // rows))
    places = [(row, column) for row in range(rows) for column in range(columns)]
    for first in range(0, len(places), AT_ONCE):
        part = []
        for row, column in places[first : first + AT_ONCE]:
            draw = rng(0, "patches of an image", row * columns + column)
            top = _start(source.height, height, rows, row, draw)
            left = _start(source.width, width, columns, column, draw)
            part.append(to_tensor(source.read(top, top + height, left, left + width)))
        yield torch.stack(part)


def _patch_side(length: int, multiple_of: int) -> int:
    """``PATCH`` or somewhat more, so that enough patches cover all of ``length``."""
    return length // max(1, length // PATCH) // multiple_of * multiple_of or length


def _start(length: int, patch: int, count: int, index: int, draw: np.random.Generator) -> int:
    """Where the patch of cell ``index`` of ``count`` begins."""
    first, last = index * length // count, (index + 1) * length // count - patch
    return int(draw.integers(first, last + 1))


def _bands(
    network: nn.Module, source: Source, tile: int, halo: int, multiple_of: int
) -> Iterator[np.ndarray]:
    for row in bands(source.height, source.width, tile, halo):
        yield np.concatenate([_translate_tile(network, source, t, multiple_of) for t in row], axis=1)


def _translate_tile(network: nn.Module, source: Source, tile: Tile, multiple_of: int) -> np.ndarray:
    pixels = source.read(tile.window_top, tile.window_bottom, tile.window_left, tile.window_right)
    made = translate(network, _on_device(network, to_tensor(pixels)[None]), multiple_of)
    top, left = tile.top - tile.window_top, tile.left - tile.window_left
    inside = made[0, :, top : top + tile.bottom - tile.top, left : left + tile.right - tile.left]
    return from_tensor(inside, source.dtype)


def _on_device(network: nn.Module, images: Tensor) -> Tensor:
    return images.to(next(network.parameters(), images))
