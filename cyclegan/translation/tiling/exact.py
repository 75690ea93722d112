"""The whole image's result in bounded device memory: one layer at a time, tile by tile.

Nothing is approximated: every convolution sees its true neighbours, and every norm the mean and variance
of the whole map, added up while the map was written. The price is room on the host: the largest two
feature maps live in memory or in files.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from cyclegan.errors import BadInput
from cyclegan.images import from_tensor, to_tensor
from cyclegan.networks.inference import padding
from cyclegan.networks.layers import ReflectionPad, ReplicationPad
from cyclegan.translation.tiling.lazy import (
    Enlarged,
    FeatureMap,
    Padded,
    Positionwise,
    Region,
    Scratch,
    Stored,
)
from cyclegan.translation.tiling.source import Source

POINTWISE = nn.ReLU | nn.LeakyReLU | nn.Tanh | nn.Sigmoid | nn.SiLU | nn.GELU
_PADDINGS = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate", nn.ZeroPad2d: "zeros"}
POINTWISE_METHODS = ("tanh", "sigmoid", "relu", "clamp")
BAND = 256  # rows of the result that are yielded at once


class ImageMap:
    """The image as the first feature map, extended to the multiples that the network needs."""

    def __init__(self, source: Source, device: torch.device) -> None:
        self.source, self.device = source, device
        self.height, self.width = source.height, source.width
        self.channels = source.read(0, 1, 0, 1).shape[2]

    def read(self, region: Region) -> Tensor:
        pixels = self.source.read(region.top, region.bottom, region.left, region.right)
        return to_tensor(pixels)[None].to(self.device)


def exact_bands(
    network: nn.Module, source: Source, multiple_of: int, device_bytes: int, host_bytes: int
) -> Iterator[np.ndarray]:
    """Translate as if at once, to rounding.

    Args:
        network: in evaluation mode, in fp32.
        device_bytes: what a tile of one layer may take.
        host_bytes: feature maps larger than this go to files in the temporary folder.

    Yields:
        Rows from the top, (rows, W, C) of the source's dtype.

    Raises:
        BadInput: a layer that cannot be done in tiles, or no room for the feature maps.
    """
    device = next(network.parameters()).device
    image = _extended(ImageMap(source, device), multiple_of)
    executor = LayerByLayer(network, Scratch(host_bytes, device), device_bytes)
    with torch.inference_mode():
        result = executor.run(image)
        for top in range(0, source.height, BAND):
            bottom = min(top + BAND, source.height)
            yield from_tensor(result.read(Region(top, bottom, 0, source.width))[0], source.dtype)


def _extended(image: FeatureMap, multiple_of: int) -> FeatureMap:
    """As ``networks.inference.pad`` does it."""
    bottom, right, mode = padding(image.height, image.width, multiple_of)
    return Padded(image, (0, right, 0, bottom), mode) if bottom or right else image


class _Tracer(fx.Tracer):
    """Sees layers, and what happens between them."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        ours = isinstance(module, ReflectionPad | ReplicationPad | nn.InstanceNorm2d)
        return ours or super().is_leaf_module(module, name)


class LayerByLayer(fx.Interpreter):
    """Runs a network's graph on feature maps instead of tensors."""

    def __init__(self, network: nn.Module, scratch: Scratch, device_bytes: int) -> None:
        self.network_name = type(network).__name__
        try:
            graph = _Tracer().trace(network)
        except (fx.proxy.TraceError, TypeError, ValueError) as error:
            raise self._unknown(str(error)) from error
        super().__init__(fx.GraphModule(network, graph))
        self.extra_traceback = False  # it would write the graph into our one line
        self.scratch, self.device_bytes = scratch, device_bytes

    def call_module(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FeatureMap:
        layer, source = self.fetch_attr(target), args[0]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            return self._convolve(layer, source)
        if isinstance(layer, nn.InstanceNorm2d) and not layer.track_running_stats:
            return self._normalize(layer, source)
        if isinstance(layer, nn.BatchNorm2d | nn.InstanceNorm2d | POINTWISE):
            return _pointwise(_without_inplace(layer), source)
        if isinstance(layer, nn.Identity | nn.Dropout | nn.Dropout2d):
            return source
        if isinstance(layer, ReflectionPad):
            return Padded(source, (layer.width,) * 4, "reflect")
        for kind, mode in _PADDINGS.items():
            if isinstance(layer, kind):
                return Padded(source, tuple(layer.padding), mode)
        if isinstance(layer, nn.Upsample):
            return self._enlarge(layer, source)
        if isinstance(layer, nn.AvgPool2d) and _tiles_evenly(layer):
            return self._fill(source.channels, *_pooling(layer.stride, source))
        raise self._unknown(type(layer).__name__)

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FeatureMap:
        name = target.__name__
        if name in ("add", "iadd", "mul", "sub"):
            maps = [a for a in args if not isinstance(a, int | float)]
            if len(maps) == len(args):
                # Stored, or a chain of residual blocks would be read anew, all of it, by every block.
                return self._store(Positionwise(target, maps, maps[0].channels))
        if name == "cat":
            maps = args[0]
            return Positionwise(
                lambda *parts: torch.cat(parts, dim=1), maps, sum(part.channels for part in maps)
            )
        if name in POINTWISE_METHODS:
            return _pointwise(lambda x: target(x, *args[1:], **kwargs), args[0])
        raise self._unknown(name)

    def call_method(self, target: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> FeatureMap:
        if target not in POINTWISE_METHODS:
            raise self._unknown(target)
        return _pointwise(lambda x: getattr(x, target)(*args[1:], **kwargs), args[0])

    def _unknown(self, name: str) -> BadInput:
        return BadInput(
            f"--tiling exact: cannot follow {self.network_name} layer by layer ({name}); use --tiling dense"
        )

    def _normalize(self, layer: nn.InstanceNorm2d, source: FeatureMap) -> FeatureMap:
        moments = source.moments if isinstance(source, Stored) else self._store(source).moments
        like = next(self.module.parameters())
        mean, variance = (v.to(like.device, like.dtype) for v in (moments.mean, moments.variance))
        return _pointwise(
            lambda x: F.batch_norm(x, mean, variance, layer.weight, layer.bias, eps=layer.eps), source
        )

    def _convolve(self, layer: nn.Conv2d | nn.ConvTranspose2d, source: FeatureMap) -> Stored:
        if isinstance(layer, nn.ConvTranspose2d):
            return self._fill(layer.out_channels, *_transposed(layer, source))
        return self._fill(layer.out_channels, *_convolution(layer, source))

    def _enlarge(self, layer: nn.Upsample, source: FeatureMap) -> FeatureMap:
        if layer.mode == "nearest" and layer.scale_factor == 2:
            return Enlarged(source, 2)
        if layer.mode == "bilinear" and layer.scale_factor in (2, 4) and not layer.align_corners:
            return self._fill(source.channels, *_interpolation(int(layer.scale_factor), source))
        raise self._unknown(type(layer).__name__)

    def _store(self, source: FeatureMap) -> Stored:
        return self._fill(source.channels, source.height, source.width, source.read)

    def _fill(self, channels: int, height: int, width: int, make: Any) -> Stored:
        """Make a map tile by tile."""
        stored = self.scratch.store(channels, height, width)
        # Input, output and the layouts between them: four times what the tile itself takes.
        side = max(32, int((self.device_bytes / (4 * 4 * max(channels, 64))) ** 0.5))
        for top in range(0, height, side):
            for left in range(0, width, side):
                region = Region(top, min(top + side, height), left, min(left + side, width))
                values = make(region)
                stored.moments.add(values)
                stored.values[:, :, region.top : region.bottom, region.left : region.right] = values
        return stored


def _pointwise(function: Callable[[Tensor], Tensor], source: FeatureMap) -> Positionwise:
    return Positionwise(function, [source], source.channels)


def _without_inplace(layer: nn.Module) -> Any:
    """Tiles are copies or fresh, but one source may be read by two: nothing is changed in place."""
    if isinstance(layer, nn.ReLU):
        return F.relu
    if isinstance(layer, nn.LeakyReLU):
        return lambda x: F.leaky_relu(x, layer.negative_slope)
    return layer


def _convolution(layer: nn.Conv2d, source: FeatureMap) -> tuple[int, int, Any]:
    """Height and width of the result, and what makes a region of it."""
    (ky, kx), (sy, sx), (dy, dx) = layer.kernel_size, layer.stride, layer.dilation
    py, px = layer.padding
    mode = layer.padding_mode
    padded = Padded(source, (px, px, py, py), mode) if py or px else source
    height = (padded.height - dy * (ky - 1) - 1) // sy + 1
    width = (padded.width - dx * (kx - 1) - 1) // sx + 1

    def make(region: Region) -> Tensor:
        seen = Region(
            region.top * sy,
            (region.bottom - 1) * sy + dy * (ky - 1) + 1,
            region.left * sx,
            (region.right - 1) * sx + dx * (kx - 1) + 1,
        )
        return F.conv2d(
            padded.read(seen), layer.weight, layer.bias, layer.stride, 0, layer.dilation, layer.groups
        )

    return height, width, make


def _transposed(layer: nn.ConvTranspose2d, source: FeatureMap) -> tuple[int, int, Any]:
    """As ``_convolution``: output o takes from inputs i with o = i * stride - padding + tap."""
    (ky, kx), (sy, sx), (py, px) = layer.kernel_size, layer.stride, layer.padding
    oy, ox = layer.output_padding
    height = (source.height - 1) * sy - 2 * py + ky + oy
    width = (source.width - 1) * sx - 2 * px + kx + ox
    # Zeros around it add nothing, and give every output its full set of inputs.
    around = Padded(source, (kx, kx, ky, ky), "zeros")

    def make(region: Region) -> Tensor:
        top, bottom = _inputs(region.top, region.bottom, sy, py, ky)
        left, right = _inputs(region.left, region.right, sx, px, kx)
        seen = around.read(Region(top + ky, bottom + ky, left + kx, right + kx))
        made = F.conv_transpose2d(seen, layer.weight, layer.bias, layer.stride, groups=layer.groups)
        y, x = region.top - (top * sy - py), region.left - (left * sx - px)
        return made[:, :, y : y + region.bottom - region.top, x : x + region.right - region.left]

    return height, width, make


def _tiles_evenly(layer: nn.AvgPool2d) -> bool:
    """Whether its squares lie side by side."""
    side = layer.stride
    return isinstance(side, int) and (layer.kernel_size, layer.padding, layer.ceil_mode) == (side, 0, False)


def _pooling(side: int, source: FeatureMap) -> tuple[int, int, Any]:
    """As ``_convolution``: means of squares that do not overlap."""

    def make(region: Region) -> Tensor:
        seen = Region(side * region.top, side * region.bottom, side * region.left, side * region.right)
        return F.avg_pool2d(source.read(seen), side)

    return source.height // side, source.width // side, make


def _interpolation(factor: int, source: FeatureMap) -> tuple[int, int, Any]:
    """As ``_convolution``: enlarged bilinearly."""
    around = Padded(source, (1, 1, 1, 1), "replicate")  # as it goes on at the borders

    def make(region: Region) -> Tensor:
        # A pixel more on each side than the region lies on; where it is padded all are one further on.
        top, left = region.top // factor - 1, region.left // factor - 1
        bottom, right = ((last - 1) // factor + 2 for last in (region.bottom, region.right))
        seen = around.read(Region(top + 1, bottom + 1, left + 1, right + 1))
        made = F.interpolate(seen, scale_factor=float(factor), mode="bilinear")
        y, x = region.top - factor * top, region.left - factor * left
        return made[:, :, y : y + region.bottom - region.top, x : x + region.right - region.left]

    return factor * source.height, factor * source.width, make


def _inputs(first: int, last: int, stride: int, padding: int, taps: int) -> tuple[int, int]:
    """The inputs, start to stop, that reach outputs ``first`` to ``last`` (exclusive)."""
    return -((taps - 1 - padding - first) // stride), (last - 1 + padding) // stride + 1
