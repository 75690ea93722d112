"""A convolution of stride 1 by fewer multiplications, for fp32 on CPUs (Lavin and Gray, arXiv 1509.09308).

After Winograd and Toom-Cook: six values of a row, seen as a polynomial, are multiplied with a filter at six
points (0, 1, -1, 1/2, -2, infinity) instead of coefficient by coefficient. In two dimensions a tile of 6x6
inputs makes m x m outputs, m = 7 - taps, by 36 products for each pair of channels instead of (m * taps)**2:
a quarter for 3x3 and 4x4 taps, and those are 36 products of matrices, which is what processors are fastest
at. Going there and back is three products with small fixed matrices: A for outputs, B for inputs, G for
weights, each its Kronecker square here, so that both dimensions are done at once. It is the same function
and its very gradients; rounding errors are two millionths of the result's deviation, 1.4 to 9 times a plain
convolution's, by processor (the points are those of Barabasz et al., arXiv 1803.10986, that keep them small).
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan.networks.layers import is_plain, replace_layers
from cyclegan.networks.map_tiles import Piece, Tiles, scratch

_SIDE = 6
_SQUARE = _SIDE**2
_POINTS = np.array([0.0, 1.0, -1.0, 0.5, -2.0])
# Of a piece's transformed inputs or outputs: with the weights they are to stay in a cache.
_PIECE_BYTES = 5 * 2**20


class WinogradConv2d(nn.Conv2d):
    """nn.Conv2d of stride 1 with 3x3 or 4x4 taps and zero padding.

    Other devices and formats, small maps, few channels and what torch.compile compiles go the plain way.
    """

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding[0]
        if _fits(x) and saves_time(x.shape, self.weight.shape, padding):
            return _WinogradConvolution.apply(x, self.weight, self.bias, padding)
        return super().forward(x)


def with_fewer_products(network: nn.Module) -> None:
    """Replace the convolutions that large maps get through sooner so; ``network`` is changed in place."""
    replace_layers(network, _with_fewer_products)


def _with_fewer_products(layer: nn.Module) -> nn.Module | None:
    return as_fewer_products(layer, WinogradConv2d, (3, 4), saves_time)


def as_fewer_products(
    layer: nn.Module, kind: type[nn.Conv2d], known: tuple[int, ...], saves: Callable[..., bool]
) -> nn.Module | None:
    """The layer as ``kind``, without weights, where it has as many taps as that knows and large maps gain."""
    if type(layer) is not nn.Conv2d or layer.kernel_size[0] not in known:
        return None
    taps, padding = layer.kernel_size[0], layer.padding[0]
    large = (1, layer.in_channels, 256, 256)
    if not is_plain(layer, padding, (taps, taps)) or not saves(large, layer.weight.shape, padding):
        return None
    return kind(layer.in_channels, layer.out_channels, taps, 1, padding, device="meta")


def _fits(x: Tensor) -> bool:
    if x.device.type != "cpu" or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return False
    return x.dim() == 4 and x.dtype in (torch.float32, torch.float64)


def saves_time(inputs: tuple[int, ...], weight: tuple[int, ...], padding: int) -> bool:
    """Whether a convolution of (N, C, H, W) by (outputs, C, taps, taps) is faster this way."""
    return Tiles.over(inputs, weight[-1], padding, _SIDE).saves_time(weight, padding, around=190)


def _by_points(piece: Piece, matrix: Tensor, pixels: Tensor, side: int, name: str) -> Tensor:
    """The windows' pixels by points, (36, tiles, C), in the scratch memory of that name."""
    windows = piece.windows(pixels, side)
    by_place = scratch("by place", windows.shape, pixels).copy_(windows)
    return _product(matrix, by_place, side**2, name).view(_SQUARE, piece.count, pixels.shape[3])


def _product(matrix: Tensor, x: Tensor, rows: int, name: str) -> Tensor:
    """``matrix`` times all of ``x``, contiguous, as ``rows`` rows."""
    columns = x.numel() // rows
    made = scratch(name, (matrix.shape[0], columns), x)
    return torch.mm(matrix, x.view(rows, columns), out=made)


class _WinogradConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.bias_sizes = padding, None if bias is None else list(bias.shape)
        tiles = Tiles.over(x.shape, weight.shape[-1], padding, _SIDE)
        back, there, _ = _matrices(tiles.taps, x.dtype)
        by_point = _weights_by_point(weight).transpose(1, 2)
        size = (tiles.images, len(weight), tiles.height, tiles.width)
        last = x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        made = torch.empty(size, dtype=x.dtype, memory_format=layout)
        for piece in tiles.pieces(max(weight.shape[:2]), x.itemsize, _PIECE_BYTES):
            pixels = piece.cut(x, tiles.taps - 1, padding)
            seen = _by_points(piece, there, pixels, _SIDE, "seen")
            products = scratch("products", (_SQUARE, piece.count, len(weight)), x)
            torch.bmm(seen, by_point, out=products)
            if bias is not None:
                products[_SIDE + 1] += bias  # A has a column of ones there: it goes to all outputs of a tile
            outputs = piece.empty(x, len(weight), 0)
            places = piece.windows(outputs, tiles.step)
            places.copy_(_product(back, products, _SQUARE, "seen").view(places.shape))
            inside, there_in_made = piece.overlap(outputs, made, 0)
            there_in_made.copy_(inside)
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # gradients of gradients are wanted: the plain way, which has them
            return *plain_gradients(gradient, x, weight, ctx.bias_sizes, ctx.padding, wanted), None
        of_x, of_weight = _gradients(gradient, x, weight, ctx.padding, wanted)
        of_bias = gradient.sum((0, 2, 3)) if wanted[2] else None
        return of_x, of_weight, of_bias, None


def plain_gradients(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: list[int] | None,
    padding: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Those of input, weight and bias as torch has them, which have gradients themselves."""
    around = [padding] * 2
    return torch.ops.aten.convolution_backward(
        gradient, x, weight, bias_sizes, [1, 1], around, [1, 1], False, [0, 0], 1, wanted
    )


def _gradients(
    gradient: Tensor, x: Tensor, weight: Tensor, padding: int, wanted: tuple[bool, ...]
) -> tuple[Tensor | None, Tensor | None]:
    """Of the inputs and of the weight: each step of the way there, transposed, from the last to the first."""
    tiles = Tiles.over(x.shape, weight.shape[-1], padding, _SIDE)
    back, there, of_weights = _matrices(tiles.taps, x.dtype)
    outputs, inputs = weight.shape[:2]
    of_x = torch.zeros_like(x) if wanted[0] else None
    by_point = _weights_by_point(weight) if wanted[0] else None
    of_points = scratch("of points", (_SQUARE, outputs, inputs), x) if wanted[1] else None
    for number, piece in enumerate(tiles.pieces(max(outputs, inputs), x.itemsize, _PIECE_BYTES)):
        toward = piece.cut(gradient, 0, 0)
        of_products = _by_points(piece, back.t(), toward, tiles.step, "products")
        if of_points is not None:
            pixels = piece.cut(x, tiles.taps - 1, padding)
            seen = _by_points(piece, there, pixels, _SIDE, "seen")
            # At first there is nothing yet to be added to.
            of_points.baddbmm_(of_products.transpose(1, 2), seen, beta=min(number, 1))
        if of_x is not None:
            of_seen = scratch("seen", (_SQUARE, piece.count, inputs), x)
            torch.bmm(of_products, by_point, out=of_seen)
            of_pixels = piece.empty(x, inputs, tiles.taps - 1).zero_()
            places = piece.windows(of_pixels, _SIDE)
            shares = _product(there.t(), of_seen, _SQUARE, "by place").view(places.shape)
            # Tiles overlap in what is past a step; each of these four parts of them does not.
            for down, right in itertools.product((slice(0, tiles.step), slice(tiles.step, _SIDE)), repeat=2):
                places[down, right] += shares[down, right]
            inside, theirs = piece.overlap(of_pixels, of_x, padding)
            theirs += inside  # pieces overlap, too
    of_weight = None
    if of_points is not None:
        # Transposed afterwards: a product of so few columns takes five times as long.
        by_tap = _product(of_weights.t(), of_points, _SQUARE, "seen")
        of_weight = by_tap.t().clone(memory_format=torch.contiguous_format).view(weight.shape)
    return of_x, of_weight


def _weights_by_point(weight: Tensor) -> Tensor:
    """(outputs, inputs, taps, taps) as (36, outputs, inputs)."""
    outputs, inputs, taps, _ = weight.shape
    of_weights = _matrices(taps, weight.dtype)[2]
    made = scratch("by point", (_SQUARE, outputs * inputs), weight)
    torch.mm(of_weights, weight.reshape(outputs * inputs, taps**2).t(), out=made)
    return made.view(_SQUARE, outputs, inputs)


@functools.cache
def _matrices(taps: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A (step**2, 36), B (36, 36) and G (36, taps**2), so that outputs = A ((G weights) * (B inputs))."""
    a, b, g = (np.zeros(shape) for shape in ((_SIDE + 1 - taps, _SIDE), (_SIDE, _SIDE), (_SIDE, taps)))
    for k, point in enumerate(_POINTS):
        others = np.delete(_POINTS, k)
        a[:, k] = point ** np.arange(len(a))
        b[k, :-1] = np.poly(others)[::-1]
        g[k] = point ** np.arange(taps) / np.prod(point - others)
    a[-1, -1] = g[-1, -1] = 1  # infinity: the leading coefficient alone
    b[-1] = np.poly(_POINTS)[::-1]
    return tuple(torch.from_numpy(np.kron(matrix, matrix)).to(dtype) for matrix in (a, b, g))
