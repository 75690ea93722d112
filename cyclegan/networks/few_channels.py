"""Convolutions from or to an image's few channels, for CPUs: the same function in a third of the time.

Processors compute output channels by sixteens, so that where three are made most of the work is thrown away:
in a generator's last layer, and where the first one's gradient goes back to the image. Here each row of the
filter makes channels of its own, whose maps are then added, shifted. What goes from few channels to many is
fast as it is, and the last layer's gradients are written as such.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

FEW, MANY = 4, 16
Gradients = tuple[Tensor | None, Tensor | None, Tensor | None]


def with_few_channels(layer: nn.Conv2d) -> nn.Conv2d | None:
    """The layer of this file, without weights, that is ``layer`` but faster; None where none is.

    Args:
        layer: without padding, stride, dilation, groups or a parametrized weight.
    """
    if min(layer.kernel_size) < 3:  # nothing to gain
        return None
    if layer.out_channels <= FEW and layer.in_channels >= MANY:
        kind: type[nn.Conv2d] = FewOutputsConv2d
    elif layer.in_channels <= FEW and layer.out_channels >= MANY:
        kind = FewInputsConv2d
    else:
        return None
    return kind(layer.in_channels, layer.out_channels, layer.kernel_size, device="meta")


class FewOutputsConv2d(nn.Conv2d):
    """A convolution to one or three channels, without padding."""

    def forward(self, x: Tensor) -> Tensor:
        return _ToFew.apply(*_in_one_precision(x, self.weight, self.bias))


class FewInputsConv2d(nn.Conv2d):
    """A convolution from one or three channels, without padding."""

    def forward(self, x: Tensor) -> Tensor:
        return _FromFew.apply(*_in_one_precision(x, self.weight, self.bias))


class _ToFew(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _by_rows(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        turned, padded = _turned(weight), _padded(gradient, weight)
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = F.conv2d(padded, turned)
        if ctx.needs_input_grad[1]:
            # As if x were the gradient of a convolution that the outputs' gradient went into.
            of_weight = _turned(conv2d_weight(padded, turned.shape, x))
        return of_x, of_weight, _of_bias(ctx, gradient)


class _FromFew(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Gradients:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        if ctx.needs_input_grad[0]:
            of_x = _by_rows(_padded(gradient, weight), _turned(weight), None)
        if ctx.needs_input_grad[1]:
            of_weight = conv2d_weight(x, weight.shape, gradient)
        return of_x, of_weight, _of_bias(ctx, gradient)


def _by_rows(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The convolution of x (N, inputs, H, W) to few outputs, a row of the filter at a time."""
    outputs, inputs, rows, columns = weight.shape
    filters = weight.permute(2, 0, 1, 3).reshape(rows * outputs, inputs, 1, columns)
    by_row = F.conv2d(x, filters).unflatten(1, (rows, outputs))
    height = x.shape[2] - rows + 1
    total = by_row[:, 0, :, :height].to(_summing(x), copy=True)
    for row in range(1, rows):
        total += by_row[:, row, :, row : row + height]
    if bias is not None:
        total += bias.view(-1, 1, 1)
    return total.to(x.dtype)


def _turned(weight: Tensor) -> Tensor:
    """(outputs, inputs, h, w) as (inputs, outputs, h, w), upside down and mirrored: the way back."""
    return weight.flip(2, 3).transpose(0, 1)


def _padded(gradient: Tensor, weight: Tensor) -> Tensor:
    """By itself: a convolution of few channels that has to pad takes twice as long."""
    rows, columns = (size - 1 for size in weight.shape[2:])
    return F.pad(gradient, (columns, columns, rows, rows))


def _of_bias(ctx: Any, gradient: Tensor) -> Tensor | None:
    return gradient.sum((0, 2, 3), dtype=_summing(gradient)) if ctx.needs_input_grad[2] else None


def _in_one_precision(x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """As autocast would have it; the bias is added to sums, which are kept in fp32."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind):
        return x, weight, bias
    dtype = torch.get_autocast_dtype(kind)
    return x.to(dtype), weight.to(dtype), bias


def _summing(x: Tensor) -> torch.dtype:
    """Where a sum is kept: at 16 bits it would be rounded at each term."""
    return torch.float32 if x.dtype.itemsize == 2 else x.dtype
