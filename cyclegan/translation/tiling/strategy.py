"""Whole or in tiles, and in which: decided from the image's size and the memory there is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from cyclegan.images import from_tensor, to_tensor
from cyclegan.networks.inference import translate
from cyclegan.translation.tiling.exact import exact_bands
from cyclegan.translation.tiling.memory import available_bytes, bytes_per_pixel
from cyclegan.translation.tiling.source import Source
from cyclegan.translation.tiling.tiles import dense_bands, naive_bands

Method = Literal["exact", "dense", "naive"]

WHOLE_SHARE = 0.5  # of the free memory, that an image translated at once may take
MAP_SHARE = 0.2  # of the free memory, that one feature map of the exact way may take; three live at a time
TILE_BYTES = 640 * 2**20  # what a tile takes at most: more makes it no faster, and less is wasted on halos


@dataclass(frozen=True)
class Tiling:
    """How images that are large are translated.

    Args:
        tile: side of the tiles in pixels; ``auto``: images that the memory holds are translated at once,
            unless ``method`` is given; ``off``: all images are.
        method: ``dense``, ``exact`` or ``naive``; default dense where the network allows it, else exact.
    """

    tile: int | Literal["auto", "off"] = "auto"
    method: Method | None = None


def translate_bands(
    network: nn.Module, source: Source, channels: int, multiple_of: int, tiling: Tiling
) -> Iterator[np.ndarray]:
    """Translate an image of any size in bounded memory.

    Yields:
        Rows from the top, (rows, W, C) of the source's dtype.

    Raises:
        BadInput: the method cannot be used with this network, or there is no room for it.
    """
    device = next(network.parameters()).device
    per_pixel = bytes_per_pixel(network, channels, max(64, multiple_of))
    free = available_bytes(device)
    if _is_whole(source, tiling, per_pixel, free):
        yield _at_once(network, source, multiple_of)
        return
    budget = min(TILE_BYTES, free // 3)
    method = tiling.method or ("dense" if getattr(network, "reach", None) is not None else "exact")
    if method == "exact":
        host = available_bytes(torch.device("cpu"))
        yield from exact_bands(network, source, multiple_of, budget, int(host * MAP_SHARE))
    else:
        halo = getattr(network, "reach", 0) if method == "dense" else 0
        tile = _tile_side(tiling.tile, budget / per_pixel, halo, multiple_of)
        if method == "dense":
            yield from dense_bands(network, source, tile, multiple_of, int(budget / per_pixel))
        else:
            yield from naive_bands(network, source, tile, multiple_of)


def _is_whole(source: Source, tiling: Tiling, per_pixel: float, free: int) -> bool:
    if tiling.tile == "off":
        return True
    if tiling.tile != "auto":
        return max(source.height, source.width) <= tiling.tile
    return tiling.method is None and source.height * source.width * per_pixel <= WHOLE_SHARE * free


def _tile_side(wanted: int | str, pixels: float, halo: int, multiple_of: int) -> int:
    """The side that was asked for, or the largest whose window takes no more than ``pixels``."""
    side = wanted if isinstance(wanted, int) else int(pixels**0.5) - 2 * halo
    return max(4 * multiple_of, side // multiple_of * multiple_of)


def _at_once(network: nn.Module, source: Source, multiple_of: int) -> np.ndarray:
    weight = next(network.parameters())
    image = to_tensor(source.read(0, source.height, 0, source.width))[None]
    made = translate(network, image.to(weight.device, weight.dtype), multiple_of)
    return from_tensor(made[0], source.dtype)
