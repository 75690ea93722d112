"""Parts that several networks share: normalization, upsampling, initial weights."""

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NormName = Literal["instance", "batch", "none"]
UpsampleName = Literal["transpose", "resize"]


def norm_layer(name: NormName) -> Callable[[int], nn.Module]:
    """The layer for ``channels`` features; instance norm has no parameters, as in CycleGAN's code."""
    if name == "instance":
        return nn.InstanceNorm2d
    if name == "batch":
        return nn.BatchNorm2d
    return lambda channels: nn.Identity()


def has_own_shift(name: NormName) -> bool:
    """Batch norm has a shift of its own, so the convolution before it goes without a bias."""
    return name == "batch"


class ReflectionPad(nn.Module):
    """Mirror ``width`` pixels at each border, in the precision of the input.

    As nn.ReflectionPad2d, which autocast would take to fp32 and back at each call, and whose backward
    pass on CPUs costs more than the convolution's that follows: together a third of a training step.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.device.type == "cpu":
            return _MirrorBorders.apply(x, self.width)
        return _mirror_borders(x, self.width)

    def extra_repr(self) -> str:
        return str(self.width)


def _mirror_borders(x: Tensor, width: int) -> Tensor:
    # Entered only under autocast, so that an exported graph is free of it.
    keep = torch.autocast(x.device.type, enabled=False) if torch.is_autocast_enabled(x.device.type) else None
    with keep or contextlib.nullcontext():
        return F.pad(x, (width,) * 4, mode="reflect")


class _MirrorBorders(torch.autograd.Function):
    """Reflection padding whose backward pass adds the borders' gradients back, fold by fold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, width: int) -> Tensor:
        ctx.width = width
        return _mirror_borders(x, width)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        for dim in (2, 3):
            gradient = _fold(gradient, dim, ctx.width)
        return gradient, None


def _fold(gradient: Tensor, dim: int, width: int) -> Tensor:
    inner = gradient.shape[dim] - 2 * width
    folded = gradient.narrow(dim, width, inner).clone()
    folded.narrow(dim, 1, width).add_(gradient.narrow(dim, 0, width).flip(dim))
    folded.narrow(dim, inner - 1 - width, width).add_(gradient.narrow(dim, width + inner, width).flip(dim))
    return folded


def upsample_layers(name: UpsampleName, inputs: int, outputs: int, bias: bool) -> list[nn.Module]:
    """Layers that double height and width.

    ``transpose`` is the paper's fractionally-strided convolution; ``resize`` repeats pixels and
    convolves, so that every output pixel sees as many inputs as its neighbour: no checkerboard
    (Odena et al. 2016).
    """
    if name == "transpose":
        return [nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias)]
    return [
        nn.Upsample(scale_factor=2, mode="nearest"),
        ReflectionPad(1),
        nn.Conv2d(inputs, outputs, 3, bias=bias),
    ]


def initialize(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw weights from N(0, 0.02), biases 0 (CycleGAN §7.1); batch norm scales from N(1, 0.02)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    return network
