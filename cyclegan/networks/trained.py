"""A network made fast to train: the same function and the same weights' names, other arithmetic."""

import functools
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.deployed import cpu_has_amx, cpu_has_bf16
from cyclegan.networks.few_outputs import FewOutputsConv2d
from cyclegan.networks.layers import (
    ReflectionPad,
    is_plain,
    repeat_border,
    replace_layers,
    summing,
    taking_over,
)
from cyclegan.networks.winograd import with_fewer_products
from cyclegan.networks.winograd_bf16 import with_fewer_bf16_products


def for_training(
    network: nn.Module, device: torch.device, precision: str = "no", fewer_products: bool = True
) -> nn.Module:
    """Replace layers by equal ones that take less time where ``network`` is trained; it is changed in place.

    Names and shapes of parameters and buffers stay, and so does what is computed, to rounding. On CPUs,
    where it was measured, instance norm goes without its copies, enlarging and convolving are done in one
    (2.25 times fewer multiplications), the last layer wastes nothing on channels that an image does not
    have, and convolutions between many channels take a quarter of their multiplications at fp32, four
    ninths at bf16 without AMX.

    On all devices memory is channels_last where there is no instance norm, which is made for the other
    layout and would change it at each layer. Where the processor multiplies bf16 it is channels_last with
    instance norm, too: at that speed putting maps into a convolution's order and back costs more than norms.

    Args:
        precision: in which it will be trained: ``no`` (fp32), ``bf16`` or ``fp16``.
        fewer_products: take fewer multiplications, which rounds more.
    """
    norms = any(isinstance(module, nn.InstanceNorm2d) for module in network.modules())
    on_cpu = device.type == "cpu"
    in_bf16 = on_cpu and precision == "bf16" and cpu_has_bf16()
    channels_last = not norms or in_bf16
    if on_cpu:
        for module in list(network.modules()):
            if isinstance(module, nn.Sequential):
                _merge_enlargements(module)
        norm = InstanceNormByImage if channels_last else InstanceNorm
        replace_layers(network, functools.partial(_equal_layer, norm=norm))
        if fewer_products and precision == "no":
            with_fewer_products(network)
        elif fewer_products and in_bf16 and not cpu_has_amx():
            with_fewer_bf16_products(network)
    return network.to(memory_format=torch.channels_last) if channels_last else network


def _equal_layer(layer: nn.Module, norm: type["InstanceNorm"]) -> nn.Module | None:
    if type(layer) is nn.InstanceNorm2d and not layer.track_running_stats:
        return norm(layer.num_features, layer.eps)
    if _makes_few_channels(layer):
        return FewOutputsConv2d(layer.in_channels, layer.out_channels, layer.kernel_size, device="meta")
    return None


class InstanceNorm(nn.InstanceNorm2d):
    """nn.InstanceNorm2d as group norm with one channel a group: in a third of its time, both ways."""

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[2] * x.shape[3] == 1:
            raise ValueError(
                f"instance norm of one pixel leaves nothing of it; the input is {tuple(x.shape)}"
            )
        return self._normalized(x)

    def _normalized(self, x: Tensor) -> Tensor:
        # On channels_last memory group norm sums naively, so it is kept off it.
        return F.group_norm(x.contiguous(), self.num_features, self.weight, self.bias, self.eps)


class InstanceNormByImage(InstanceNorm):
    """The same for channels_last memory, where group norm takes twenty times as long."""

    def _normalized(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self._written_out(x)
        # Given a scale, batch norm of bf16 keeps its statistics at fp32; given none it rounds them.
        ones = torch.ones(x.shape[1], dtype=summing(x.dtype))
        scale, shift = (ones, 0 * ones) if self.weight is None else (self.weight, self.bias)
        return _NormByImage.apply(x, scale, shift, self.eps)

    def _written_out(self, x: Tensor) -> Tensor:
        """From plain sums and products, which torch.compile merges with what comes before and after."""
        wide = x.to(summing(x.dtype))
        variance, mean = torch.var_mean(wide, (2, 3), correction=0, keepdim=True)
        normed = (wide - mean) * (variance + self.eps).rsqrt()
        if self.weight is not None:
            normed = normed * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        return normed.to(x.dtype)


class _NormByImage(torch.autograd.Function):
    """Batch norm of one image after the other, each written to its place: in four fifths of a list's time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, shift: Tensor, eps: float) -> Tensor:
        made = torch.empty_like(x)
        means, inverses = scale.new_empty(2, *x.shape[:2])
        for image, target, mean, inverse in zip(x.split(1), made.split(1), means, inverses, strict=True):
            out = (target, mean, inverse)
            torch.native_batch_norm(image, scale, shift, None, None, True, 0.0, eps, out=out)
        ctx.save_for_backward(x, scale, shift, means, inverses)
        ctx.eps = eps
        return made

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, shift, means, inverses = ctx.saved_tensors
        if torch.is_grad_enabled():  # gradients of gradients are wanted: from a list, which has them
            normed = [
                F.batch_norm(image, None, None, scale, shift, True, eps=ctx.eps) for image in x.split(1)
            ]
            wanted = [t for t, w in zip((x, scale, shift), ctx.needs_input_grad, strict=False) if w]
            found = iter(torch.autograd.grad(torch.cat(normed), wanted, gradient, create_graph=True))
            return *(next(found) if w else None for w in ctx.needs_input_grad[:3]), None
        of_x, sums = torch.empty_like(x), scale.new_zeros(2, len(scale))
        for image, toward, mean, inverse, target in zip(
            x.split(1), gradient.split(1), means, inverses, of_x.split(1), strict=True
        ):
            found, *of_both = torch.ops.aten.native_batch_norm_backward(
                toward, image, scale, None, None, mean, inverse, True, ctx.eps, [True, True, True]
            )
            target.copy_(found)
            for total, share in zip(sums, of_both, strict=True):
                total += share
        return of_x, *sums, None


class EnlargingConv2d(nn.Conv2d):
    """Twice the height and width by repeating pixels, then a 3x3 convolution: in one, on the small map.

    Of the nine pixels that a convolution sees on the enlarged map only four are different. With their
    weights added up beforehand this is a transposed convolution with 4x4 taps and stride 2. A mirrored
    border of one pixel on the enlarged map is a repeated one on the small map; ``mirrors`` says whether
    there is one or zeros.
    """

    def __init__(self, inputs: int, outputs: int, mirrors: bool) -> None:
        super().__init__(inputs, outputs, 3, padding=1, device="meta")
        self.mirrors = mirrors

    def forward(self, x: Tensor) -> Tensor:
        # Along one axis, with taps w0, w1, w2: even outputs see w0 x[i-1] + (w1 + w2) x[i], odd ones
        # (w0 + w1) x[i] + w2 x[i+1]. So the transposed taps are w2, w1 + w2, w0 + w1, w0.
        taps = self.weight.flip(2, 3).transpose(0, 1)
        for dim in (2, 3):
            edge = list(taps.shape)
            edge[dim] = 1
            none = taps.new_zeros(edge)
            taps = torch.cat([taps, none], dim) + torch.cat([none, taps], dim)
        if self.mirrors:
            return F.conv_transpose2d(repeat_border(x), taps, self.bias, 2, padding=3)
        return F.conv_transpose2d(x, taps, self.bias, 2, padding=1)


def _merge_enlargements(layers: nn.Sequential) -> None:
    """``upsample_layers``' "resize" and "resize_zero", each as one layer in the convolution's place."""
    for i in range(len(layers) - 1):
        if not (isinstance(layers[i], nn.Upsample) and layers[i].mode == "nearest"):
            continue
        mirrors = isinstance(layers[i + 1], ReflectionPad) and layers[i + 1].width == 1
        at = i + 2 if mirrors else i + 1
        convolution = layers[at] if at < len(layers) and layers[i].scale_factor == 2 else None
        if type(convolution) is nn.Conv2d and is_plain(convolution, padding=0 if mirrors else 1):
            merged = EnlargingConv2d(convolution.in_channels, convolution.out_channels, mirrors)
            layers[at] = taking_over(merged, convolution)
            for passed in range(i, at):
                layers[passed] = nn.Identity()


def _makes_few_channels(layer: nn.Module) -> bool:
    """At least three rows, fewer channels than would fill a register, and many that they are made of."""
    if type(layer) is not nn.Conv2d or layer.out_channels > 4 or layer.in_channels < 16:
        return False
    return min(layer.kernel_size) >= 3 and is_plain(layer, 0, layer.kernel_size)
