"""A convolution to an image's few channels, on CPUs: the same function in four tenths of the time.

Processors compute output channels by sixteens, so that where three are made most of the work is thrown away.
Here each row of the filter makes channels of its own, whose maps are then added, shifted. On the way back
both gradients are written as convolutions from few channels to many, which are fast as they are.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from cyclegan.networks.layers import summing


class FewOutputsConv2d(nn.Conv2d):
    """A convolution to one or three channels, without padding."""

    def forward(self, x: Tensor) -> Tensor:
        weight, kind = self.weight, x.device.type
        if torch.is_autocast_enabled(kind):
            x, weight = (t.to(torch.get_autocast_dtype(kind)) for t in (x, weight))
        return _ConvolvedByRows.apply(x, weight, self.bias)


class _ConvolvedByRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        outputs, inputs, rows, columns = weight.shape
        filters = weight.permute(2, 0, 1, 3).reshape(rows * outputs, inputs, 1, columns)
        by_row = F.conv2d(x, filters).unflatten(1, (rows, outputs))
        height = x.shape[2] - rows + 1
        total = by_row[:, 0, :, :height].to(summing(x.dtype), copy=True)
        for row in range(1, rows):
            total += by_row[:, row, :, row : row + height]
        if bias is not None:
            total += bias.view(-1, 1, 1)
        return total.to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        mirrored = weight.flip(2, 3).transpose(0, 1)
        # Padded by itself: a convolution of few channels that has to pad takes twice as long.
        rows, columns = (size - 1 for size in weight.shape[2:])
        padded = F.pad(gradient, (columns, columns, rows, rows))
        if x.is_contiguous(memory_format=torch.channels_last):
            padded = padded.contiguous(memory_format=torch.channels_last)  # so that no map changes its layout
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = F.conv2d(padded, mirrored)
        if ctx.needs_input_grad[1]:
            # As if x were the gradient of a convolution that the outputs' gradient went into.
            of_weight = conv2d_weight(padded, mirrored.shape, x).flip(2, 3).transpose(0, 1)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3), dtype=summing(gradient.dtype))
        return of_x, of_weight, of_bias
