"""A 3x3 convolution by fewer multiplications, for bf16 on CPUs (Lavin and Gray, arXiv 1509.09308).

As ``winograd.py``, with tiles of 4x4 inputs that make 2x2 outputs by 16 products for each pair of channels
in place of 36. The larger tiles that fp32 takes would multiply rounding errors by twelve; with these,
whose points are 0, 1, -1 and infinity, it is by two: 0.5 % of the result's deviation, where a plain
convolution at bf16 is off by 0.24 %. Products are of bf16 and summed at fp32, as everywhere. Inputs go
to points by sums alone, and maps are channels_last, so that these are sums of rows of channels.

It pays with AVX512-BF16. With AMX products are so fast that going there and back takes longer.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.layers import replace_layers, summing
from cyclegan.networks.map_tiles import Piece, Tiles, scratch
from cyclegan.networks.winograd import as_fewer_products, plain_gradients

_SIDE, _STEP, _POINTS = 4, 2, 16
# Of a piece's transformed inputs or outputs. Sums over pieces cost more than a cache gives back.
_PIECE_BYTES = 20 * 2**20

_BACK = torch.tensor([[1.0, 1.0, 1.0, 0.0], [0.0, 1.0, -1.0, -1.0]])
_OF_WEIGHTS = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.0, 0.0, 1.0]])
# Where a point goes when a filter is read backwards: 0 and infinity change places, 1 and -1 stay.
_BACKWARDS = [3, 1, 2, 0]


class WinogradBf16Conv2d(nn.Conv2d):
    """nn.Conv2d of stride 1 with 3x3 taps and zero padding, for bf16 maps that are channels_last.

    Others, small maps, few channels and what torch.compile compiles go the plain way.
    """

    def forward(self, x: Tensor) -> Tensor:
        dtype = _computed_in(x)
        if dtype is None or not saves_time(x.shape, self.weight.shape, self.padding[0]):
            return super().forward(x)
        return _WinogradConvolution.apply(x.to(dtype), self.weight, self.bias, self.padding[0])


def with_fewer_bf16_products(network: nn.Module) -> None:
    """Replace the convolutions that large maps get through sooner so; ``network`` is changed in place."""
    replace_layers(network, _with_fewer_products)


def _with_fewer_products(layer: nn.Module) -> nn.Module | None:
    return as_fewer_products(layer, WinogradBf16Conv2d, (3,), saves_time)


def _computed_in(x: Tensor) -> torch.dtype | None:
    """bf16, or None where it is to go the plain way."""
    if x.device.type != "cpu" or x.dim() != 4 or torch.compiler.is_compiling():
        return None
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    fits = dtype == torch.bfloat16 and x.is_contiguous(memory_format=torch.channels_last)
    return dtype if fits else None


def saves_time(inputs: tuple[int, ...], weight: tuple[int, ...], padding: int) -> bool:
    """Whether a convolution of (N, C, H, W) by (outputs, C, 3, 3) is faster this way."""
    return Tiles.over(inputs, 3, padding, _SIDE).saves_time(weight, padding, around=90)


class _WinogradConvolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.bias_sizes = padding, None if bias is None else list(bias.shape)
        return _convolved(x, _by_point(weight, x.dtype).transpose(1, 2), bias, padding, range(_SIDE))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # gradients of gradients are wanted: the plain way, which has them
            found = plain_gradients(gradient, x, weight.to(x.dtype), ctx.bias_sizes, ctx.padding, wanted)
            return *found, None
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x = of_weight = of_bias = None
        if wanted[0]:  # the gradient, convolved with the filters read backwards
            of_x = _convolved(gradient, _by_point(weight, x.dtype), None, 2 - ctx.padding, _BACKWARDS)
        if wanted[1]:
            of_weight = _weight_gradient(gradient, x, ctx.padding).to(weight.dtype)
        if wanted[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=summing(x.dtype)).to(weight.dtype)
        return of_x, of_weight, of_bias, None


def _convolved(
    x: Tensor, by_point: Tensor, bias: Tensor | None, padding: int, order: range | list[int]
) -> Tensor:
    """``x`` with weights (16, inputs, outputs), whose points along each axis come in ``order``."""
    tiles = Tiles.over(x.shape, 3, padding, _SIDE)
    pixels, outputs = _filled(x, tiles, padding, _SIDE - _STEP), by_point.shape[2]
    size = (tiles.images, outputs, tiles.rows * _STEP, tiles.columns * _STEP)
    found = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
    made = found.permute(0, 2, 3, 1)
    back = _squared(_BACK[:, order]).to(x.dtype)
    for piece in tiles.pieces(max(by_point.shape[1:]), x.itemsize, _PIECE_BYTES):
        seen = _seen(piece, piece.of(pixels, _SIDE - _STEP), order)
        products = scratch("products", (_POINTS, piece.count, outputs), x)
        torch.bmm(seen, by_point, out=products)
        if bias is not None:  # to the point 1 of both axes, which goes to all outputs of a tile as it is
            products[_SIDE + 1] += bias.to(x.dtype)
        by_place = scratch("by place", (_STEP**2, piece.count * outputs), x)
        torch.mm(back, products.view(_POINTS, -1), out=by_place)
        places = piece.windows(piece.of(made, 0), _STEP)
        places.copy_(by_place.view(places.shape))
    if size[2:] == (tiles.height, tiles.width):
        return found  # itself, for autograd lets nobody write into a view of it
    return found[..., : tiles.height, : tiles.width].clone(memory_format=torch.channels_last)


def _weight_gradient(gradient: Tensor, x: Tensor, padding: int) -> Tensor:
    """Of (outputs, inputs, 3, 3), at fp32 or more, from that of the outputs and the inputs."""
    tiles = Tiles.over(x.shape, 3, padding, _SIDE)
    outputs, inputs = gradient.shape[1], x.shape[1]
    toward = _filled(gradient, tiles, 0, 0)
    pixels = _filled(x, tiles, padding, _SIDE - _STEP)
    back = _squared(_BACK).t().to(x.dtype)
    total = scratch("of points", (_POINTS, outputs, inputs), x, summing(x.dtype))
    for number, piece in enumerate(tiles.pieces(max(outputs, inputs), x.itemsize, _PIECE_BYTES)):
        places = piece.windows(piece.of(toward, 0), _STEP)
        by_place = scratch("by place", places.shape, x).copy_(places)
        of_products = scratch("products", (_POINTS, piece.count * outputs), x)
        torch.mm(back, by_place.view(_STEP**2, -1), out=of_products)
        seen = _seen(piece, piece.of(pixels, _SIDE - _STEP), range(_SIDE))
        of_piece = scratch("of piece", total.shape, x)
        torch.bmm(of_products.view(_POINTS, piece.count, outputs).transpose(1, 2), seen, out=of_piece)
        if number == 0:
            total.copy_(of_piece)
        else:  # at fp32 beforehand: added as it is, it would be put into memory of its own
            total += scratch("of piece", total.shape, total).copy_(of_piece)
    by_tap = total.new_empty(9, outputs * inputs)
    torch.mm(_squared(_OF_WEIGHTS).t().to(total.dtype), total.view(_POINTS, -1), out=by_tap)
    return by_tap.view(3, 3, outputs, inputs).permute(2, 3, 0, 1)


def _filled(x: Tensor, tiles: Tiles, padding: int, border: int) -> Tensor:
    """(N, C, H, W) as (N, h, w, C) that the tiles and their border fill, with zeros around it."""
    below, right = (n * _STEP + border for n in (tiles.rows, tiles.columns))
    around = (padding, right - padding - x.shape[3], padding, below - padding - x.shape[2])
    return (F.pad(x, around) if any(around) else x).permute(0, 2, 3, 1)


def _seen(piece: Piece, pixels: Tensor, order: range | list[int]) -> Tensor:
    """The piece's pixels by points, (16, tiles, C), along each axis in ``order``, in scratch memory."""
    images, rows, columns = piece.shape
    width, channels = pixels.shape[2:]
    by_row = scratch("by row", (_SIDE, images, rows, width, channels), pixels)
    _sum_up([pixels[:, k : k + 2 * rows - 1 : 2] for k in range(_SIDE)], by_row, order)
    seen = scratch("seen", (_SIDE, _SIDE, images, rows, columns, channels), pixels)
    columns_of = [by_row[:, :, :, k : k + 2 * columns - 1 : 2] for k in range(_SIDE)]
    _sum_up(columns_of, seen.transpose(0, 1), order)
    return seen.view(_POINTS, piece.count, channels)


def _sum_up(d: list[Tensor], made: Tensor, order: range | list[int]) -> None:
    """Values at four places in a row to those at 0, 1, -1 and infinity, each at its place in ``order``."""
    torch.sub(d[0], d[2], out=made[order[0]])
    torch.add(d[1], d[2], out=made[order[1]])
    torch.sub(d[2], d[1], out=made[order[2]])
    torch.sub(d[1], d[3], out=made[order[3]])


def _by_point(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """(outputs, inputs, 3, 3) as (16, outputs, inputs) of that format, rounded once."""
    outputs, inputs = weight.shape[:2]
    taps = weight.permute(2, 3, 0, 1).reshape(9, -1).to(summing(dtype))
    made = scratch("by point", (_POINTS, outputs * inputs), taps)
    torch.mm(_squared(_OF_WEIGHTS).to(taps.dtype), taps, out=made)
    return made.to(dtype, copy=True).view(_POINTS, outputs, inputs)


def _squared(matrix: Tensor) -> Tensor:
    """For both axes at once."""
    return torch.kron(matrix, matrix)
