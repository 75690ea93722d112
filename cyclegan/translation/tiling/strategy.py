"""Whole or in tiles, and in which: decided from the image's size and the memory there is."""

import copy
import functools
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn

from cyclegan.errors import BadInput
from cyclegan.images import to_tensor
from cyclegan.networks.attention import attends_to_all
from cyclegan.networks.inference import memory_bytes
from cyclegan.translation.options import Tiling
from cyclegan.translation.tiling.exact import exact_bands
from cyclegan.translation.tiling.memory import bytes_per_pixel
from cyclegan.translation.tiling.source import Source, overview
from cyclegan.translation.tiling.statistics import depends_on_all_pixels, held_bytes_per_pixel
from cyclegan.translation.tiling.tiles import dense_bands, naive_bands

SMALL_PIXELS = 1 << 19  # 724 px square: at once on any machine, without a look at the memory
CPU = torch.device("cpu")
OVERVIEW = 512  # pixels a side or a little more, of an image that a network is shown whole
WHOLE_SHARE = 0.35  # of the memory, that an image translated at once may take
OWN_SIZE_SHARE = 0.5  # likewise, by a network with a size of its own; it takes 1.7 times what is measured
MAP_SHARE = 0.15  # of the memory, that one feature map of the exact way may take; three live at a time
TILE_BYTES = 640 * 2**20  # what a tile takes at most: more makes it no faster, and less is wasted on halos


class Tiler:
    """Cuts images that are too large for memory, and puts their translations together.

    Args:
        network: in evaluation mode, on its device; in fp32 where ``tiling.method`` is ``exact``.
        channels: of its images.
        multiple_of: what it needs their height and width to be.
        device: where it computes.
        load: gives the network when an image is large enough for the question, where ``network`` is but its
            layers, on torch's meta device.

    Raises:
        BadInput: tiles are asked for, and the network attends to the whole image at once.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: int,
        multiple_of: int,
        tiling: Tiling,
        device: torch.device = CPU,
        load: Callable[[], nn.Module] | None = None,
    ) -> None:
        self.network, self.channels, self.multiple_of, self.tiling = network, channels, multiple_of, tiling
        self.device, self.load = device, load
        # Attention has no halo, and no number that could be gathered first: tiles cannot agree.
        self.whole_only = attends_to_all(network) and tiling.method != "naive"
        if self.whole_only and (tiling.method is not None or isinstance(tiling.tile, int)):
            raise BadInput(
                f"--tile, --tiling: {type(network).__name__} attends to the whole image at once, which no "
                "tile shows; leave them out, give smaller images (--size), or take --tiling naive, with seams"
            )

    @functools.cached_property
    def loaded(self) -> nn.Module:
        """The network with its weights."""
        return self.network if self.load is None else self.load()

    @functools.cached_property
    def _for_any_picture(self) -> nn.Module:
        """The network as it is for tiles; memory is measured on it."""
        return _for_picture(self.loaded, lambda: torch.zeros(self.channels, OVERVIEW, OVERVIEW))

    @functools.cached_property
    def per_pixel(self) -> float:
        """Bytes that a pixel takes on its way through the network."""
        return bytes_per_pixel(self._for_any_picture, self.channels, max(64, self.multiple_of))

    @functools.cached_property
    def held_per_pixel(self) -> float:
        """Bytes that a pixel takes while it waits for the others of a sample: some quarter of the above."""
        if not depends_on_all_pixels(self.loaded):
            return self.per_pixel  # no sample is taken
        return held_bytes_per_pixel(self._for_any_picture, self.channels, max(64, self.multiple_of))

    def applies(self, height: int, width: int) -> bool:
        """Whether an image of this size goes in tiles.

        Raises:
            BadInput: it would have to, and the generator has to see it whole.
        """
        tiling = self.tiling
        if tiling.tile == "off":
            return False
        if self.whole_only:
            share, more = 1.0, ", or take --tiling naive, with seams"
            if hasattr(self.network, "computed_at"):  # made small by the network itself, and never cut
                (height, width), share, more = self.network.computed_at(height, width), OWN_SIZE_SHARE, ""
            there = share * memory_bytes(self.device)
            if height * width > SMALL_PIXELS and height * width * self.per_pixel > there:
                raise BadInput(
                    f"{width}x{height} pixels are more than memory holds, and this network attends to the "
                    f"whole image at once; give it smaller, with --size{more}"
                )
            return False
        if tiling.tile != "auto":
            return max(height, width) > tiling.tile
        if tiling.method is not None:
            return True
        if height * width <= SMALL_PIXELS:
            return False
        return height * width * self.per_pixel > WHOLE_SHARE * memory_bytes(self.device)

    def bands(self, source: Source) -> Iterator[np.ndarray]:
        """Translate an image of any size in bounded memory.

        Yields:
            Rows from the top, (rows, W, C) of the source's dtype.

        Raises:
            BadInput: the method cannot be used with this network, or there is no room for it.
        """
        network = _for_picture(self.loaded, lambda: to_tensor(overview(source, OVERVIEW)))
        reach = getattr(network, "reach", None)
        method = self.tiling.method or ("exact" if reach is None else "dense")
        budget = min(TILE_BYTES, memory_bytes(self.device) // 4)
        if method == "exact":
            host = int(memory_bytes(CPU) * MAP_SHARE)
            yield from exact_bands(_at_fp32(network), source, self.multiple_of, budget, host)
            return
        pixels = int(budget / self.per_pixel)
        if method == "dense":
            tile = self._side(pixels, reach or 0)
            sample = int(budget / self.held_per_pixel)
            yield from dense_bands(network, source, tile, self.multiple_of, sample)
        else:
            yield from naive_bands(network, source, self._side(pixels, 0), self.multiple_of)

    def _side(self, pixels: int, halo: int) -> int:
        """The side that was asked for, or the largest whose window takes no more than ``pixels``."""
        wanted = self.tiling.tile
        side = wanted if isinstance(wanted, int) else int(pixels**0.5) - 2 * halo
        return max(4 * self.multiple_of, side // self.multiple_of * self.multiple_of)


def _for_picture(network: nn.Module, view: Callable[[], torch.Tensor]) -> nn.Module:
    """The network as it is for one picture, where it looks at the whole first."""
    return network.for_picture(view) if hasattr(network, "for_picture") else network


def _at_fp32(network: nn.Module) -> nn.Module:
    """What maps in host memory are computed by; ``auto`` comes to them at half precision, too."""
    half = next(network.parameters()).dtype != torch.float32
    return copy.deepcopy(network).float() if half else network
