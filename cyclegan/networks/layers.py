"""Parts that several networks share: normalization, padding, resampling, dropout, initial weights."""

import contextlib
import functools
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.spectral import is_normalized, set_weight

NormName = Literal["instance", "instance_affine", "batch", "none"]
PaddingName = Literal["reflect", "replicate", "zero"]
DownsampleName = Literal["stride", "blur"]
Residual = bool | Literal["coarse"]
_COARSE = 4  # pixels, over which colours are averaged
UpsampleName = Literal["transpose", "resize", "resize_zero", "bilinear", "bilinear_zero", "blur"]


def norm_layer(name: NormName) -> Callable[[int], nn.Module]:
    """The layer for ``channels`` features.

    ``instance`` has no parameters, as in CycleGAN's code; ``instance_affine`` has a scale and a shift.
    """
    if name == "instance":
        return nn.InstanceNorm2d
    if name == "instance_affine":
        return functools.partial(nn.InstanceNorm2d, affine=True)
    if name == "batch":
        return nn.BatchNorm2d
    return lambda channels: nn.Identity()


def has_own_shift(name: NormName) -> bool:
    """Batch norm has a shift of its own, so the convolution before it goes without a bias."""
    return name == "batch"


def summing(dtype: torch.dtype) -> torch.dtype:
    """Where sums of such numbers are kept: at 16 bits they would be rounded at each term."""
    return torch.promote_types(dtype, torch.float32)


def blur(images: Tensor, deviation: float) -> Tensor:
    """(N, C, H, W) under a Gaussian, in fp32: what is left of a difference would drown in half precision.

    Args:
        deviation: in pixels; the Gaussian ends at twice that, and borders are mirrored.
    """
    reach = math.ceil(2 * deviation)
    with torch.autocast(images.device.type, enabled=False):
        places = torch.arange(-reach, reach + 1, device=images.device, dtype=torch.float32)
        weights = torch.softmax(-0.5 * (places / deviation).square(), dim=0)
        columns = weights.view(1, 1, -1, 1).expand(images.shape[1], 1, -1, 1)
        padded = F.pad(images.float(), (reach,) * 4, mode="reflect")
        down = F.conv2d(padded, columns, groups=images.shape[1])
        return F.conv2d(down, columns.transpose(2, 3), groups=images.shape[1])


class ReflectionPad(nn.Module):
    """Mirror ``width`` pixels at each border, in the precision of the input.

    As nn.ReflectionPad2d, which autocast would take to fp32 and back at each call, and whose backward
    pass on CPUs costs more than the convolution's that follows: together a third of a training step.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad and x.device.type == "cpu" and not _torch_is_fast(x):
            return _MirrorBorders.apply(x, self.width)
        return _mirror_borders(x, self.width)

    def extra_repr(self) -> str:
        return str(self.width)


def _torch_is_fast(x: Tensor) -> bool:
    """On channels_last memory torch's own backward pass is the faster one, at fp32."""
    return x.dtype == torch.float32 and x.is_contiguous(memory_format=torch.channels_last)


def _mirror_borders(x: Tensor, width: int) -> Tensor:
    # Entered only under autocast, so that an exported graph is free of it; meta tensors know no autocast.
    kind = x.device.type
    casts = kind != "meta" and torch.is_autocast_enabled(kind)
    keep = torch.autocast(kind, enabled=False) if casts else None
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
        width, bottom = ctx.width, gradient.shape[2] - ctx.width
        inner = _folded_columns(gradient[:, :, width:bottom], width)  # the only copy of the whole map
        inner[:, :, 1 : 1 + width].add_(_mirrored(_folded_columns(gradient[:, :, :width], width), 2))
        below = _mirrored(_folded_columns(gradient[:, :, bottom:], width), 2)
        inner[:, :, -1 - width : -1].add_(below)
        return inner, None


def _folded_columns(rows: Tensor, width: int) -> Tensor:
    """A copy without the borders left and right, whose gradients are added where they came from."""
    folded = rows[..., width:-width].clone()
    folded[..., 1 : 1 + width].add_(_mirrored(rows[..., :width], 3))
    folded[..., -1 - width : -1].add_(_mirrored(rows[..., -width:], 3))
    return folded


def _mirrored(border: Tensor, dim: int) -> Tensor:
    return border if border.shape[dim] == 1 else border.flip(dim)


def repeat_border(x: Tensor) -> Tensor:
    """(N, C, H, W) with one pixel more at each border, like its neighbour."""
    if not torch.compiler.is_compiling():
        return F.pad(x, (1,) * 4, mode="replicate")
    # torch 2.14's inductor hands that one's backward pass a gradient in a layout that it refuses.
    x = torch.cat([x[:, :, :1], x, x[:, :, -1:]], dim=2)
    return torch.cat([x[..., :1], x, x[..., -1:]], dim=3)


class ReplicationPad(nn.ReplicationPad2d):
    """Of one pixel, that can be compiled."""

    def __init__(self) -> None:
        super().__init__(1)

    def forward(self, x: Tensor) -> Tensor:
        return repeat_border(x)


def padding_layer(name: PaddingName) -> nn.Module:
    """One pixel at each border: mirrored, repeated or 0."""
    if name == "reflect":
        return ReflectionPad(1)
    return ReplicationPad() if name == "replicate" else nn.ZeroPad2d(1)


class Dropout(nn.Module):
    """Half of the values become 0 and the others double while training (Srivastava et al. 2014).

    All images of a batch share the mask, and a step seeds it by its number (``training/step.py``): what is
    dropped depends neither on the number of processes nor on what ran before.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # Drawn in one order whatever the map's memory has: on all machines the same is dropped.
        return x * F.dropout(torch.ones_like(x[:1], memory_format=torch.contiguous_format), 0.5)


def blur_downsample(channels: int) -> nn.Conv2d:
    """Every second pixel of the image blurred with [1, 2, 1]: no aliasing (Zhang 2019, as in CUT's code)."""
    layer = nn.Conv2d(
        channels, channels, 3, stride=2, padding=1, groups=channels, bias=False, padding_mode="reflect"
    )
    return _fixed(layer, _binomial((1, 2, 1), channels))


def blur_upsample(channels: int) -> nn.ConvTranspose2d:
    """Twice the height and width: zeros between the pixels, blurred with [1, 3, 3, 1] (as in CUT's code).

    The image comes with one more pixel at each border, which is used up.
    """
    layer = nn.ConvTranspose2d(channels, channels, 4, stride=2, padding=3, groups=channels, bias=False)
    return _fixed(layer, 4 * _binomial((1, 3, 3, 1), channels))


def _fixed(layer: nn.Module, weight: Tensor) -> Any:
    """The layer with a weight that is neither trained nor saved."""
    del layer.weight
    layer.register_buffer("weight", weight, persistent=False)
    return layer


def _binomial(row: tuple[int, ...], channels: int) -> Tensor:
    """The square filter row^T row with sum 1, for each channel: (channels, 1, len(row), len(row))."""
    weights = torch.tensor(row, dtype=torch.float32)
    square = torch.outer(weights, weights)
    return (square / square.sum()).expand(channels, 1, -1, -1).clone()


# What enlarges, and whether the convolution after it mirrors the borders or sees zeros there.
_RESIZES = {
    "resize": ("nearest", True),
    "resize_zero": ("nearest", False),
    "bilinear": ("bilinear", True),
    "bilinear_zero": ("bilinear", False),
}


def upsample_layers(name: UpsampleName, inputs: int, outputs: int, bias: bool) -> list[nn.Module]:
    """Layers that double height and width.

    ``transpose`` is the paper's fractionally-strided convolution; ``resize`` repeats pixels and
    convolves, so that every output pixel sees as many inputs as its neighbour: no checkerboard
    (Odena et al. 2016). ``bilinear`` interpolates in place of repeating, ``..._zero`` pads with zeros,
    ``blur`` is CUT's.
    """
    if name == "transpose":
        return [nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1, bias=bias)]
    if name == "blur":
        return [
            ReplicationPad(),
            blur_upsample(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias),
        ]
    mode, mirrors = _RESIZES[name]
    enlarge = nn.Upsample(scale_factor=2, mode=mode)
    if mirrors:
        return [enlarge, ReflectionPad(1), nn.Conv2d(inputs, outputs, 3, bias=bias)]
    return [enlarge, nn.Conv2d(inputs, outputs, 3, padding=1, bias=bias)]


def downsample_layers(
    name: DownsampleName, inputs: int, outputs: int, norm: NormName, bias: bool
) -> list[nn.Module]:
    """Layers that halve height and width: a strided convolution, or CUT's plain one and a blur."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=2 if name == "stride" else 1, padding=1, bias=bias)
    layers = [convolution, norm_layer(norm)(outputs), nn.ReLU(inplace=True)]
    return layers if name == "stride" else [*layers, blur_downsample(outputs)]


def initialize(network: nn.Module, std: float = 0.02) -> nn.Module:
    """Draw weights from N(0, 0.02), biases 0 (CycleGAN §7.1); batch norm scales from N(1, 0.02).

    Where ``network.keeps_variance``, all weights but those of ``network.last`` are drawn as wide as their
    inputs ask for (He et al. 2015, eq. 10): without norms, a signal would vanish in layers of 0.02.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            width = std
            if getattr(network, "keeps_variance", False) and module is not network.last:
                width = math.sqrt(2 / module.weight[0].numel())
            if is_normalized(module):
                set_weight(module, torch.empty_like(module.weight).normal_(0.0, width))
            elif isinstance(module.weight, nn.Parameter):
                nn.init.normal_(module.weight, 0.0, width)
            else:  # a fixed filter
                continue
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)
    return network


class _Clamp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        # Descending, a gradient above zero makes a value smaller.
        leaves = ((x >= 1) & (gradient < 0)) | ((x <= -1) & (gradient > 0))
        return gradient.masked_fill(leaves, 0)


def clamp(x: Tensor) -> Tensor:
    """``x.clamp(-1, 1)``, for training: values past the range come back from there.

    torch's own gives them no gradient: an area that a generator has once made black or white past the range
    stays a stain, whatever the discriminator says. Here a gradient that leads back in passes.
    """
    return _Clamp.apply(x)


def smallest_multiple(depth: int, residual: Residual) -> int:
    """Pixels that sides must be a multiple of, with so many halvings and that ``Ending``."""
    return max(2**depth, _COARSE if residual == "coarse" else 1)


class Ending(nn.Module):
    """A generator's last step: tanh; with ``residual``, a sum with the image, clamped.

    A network that adds (Kupyn et al. 2018, §4) begins as the identity: much faster to a first result where A
    and B are near each other. ``coarse`` adds to the image's colours alone, averaged over 4x4 pixels: where B
    lacks the fine detail of A, the network need not learn to take it away.
    """

    def __init__(self, residual: Residual) -> None:
        super().__init__()
        self.residual = bool(residual)
        # Never without a layer of its own, so that who follows a network layer by layer looks in here, too.
        if residual == "coarse":
            self.colours = nn.Sequential(
                nn.AvgPool2d(_COARSE), nn.Upsample(scale_factor=_COARSE, mode="bilinear")
            )
        elif residual:
            self.colours = nn.Identity()
        else:
            self.tanh = nn.Tanh()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """From the image x and what was made of it, (N, channels, H, W) both, to values in [-1, 1]."""
        if not self.residual:
            return self.tanh(y)
        made = self.colours(x) + y
        # Exporters and tracers follow torch's clamp alone.
        return clamp(made) if self.training else made.clamp(-1, 1)


def is_plain(convolution: nn.Conv2d, padding: int, kernel: tuple[int, ...] = (3, 3)) -> bool:
    """Stride 1, one group, zeros around, and a weight of its own."""
    wanted = (kernel, (1, 1), (padding, padding), (1, 1), 1, "zeros")
    found = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.dilation)
    # A parametrized weight, as of spectral normalization, has to go through its own layer.
    return (*found, convolution.groups, convolution.padding_mode) == wanted and "weight" in (
        convolution._parameters
    )


def replace_layers(network: nn.Module, equal: Callable[[nn.Module], nn.Module | None]) -> None:
    """Put what ``equal`` makes for a layer into its place, or leave it where that is None; in place."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            layer = equal(child)
            if layer is not None:
                setattr(module, name, taking_over(layer, child))


def taking_over(layer: nn.Module, former: nn.Module) -> nn.Module:
    """The new layer with the very parameters, buffers and the mode of the former one."""
    for name, parameter in former._parameters.items():
        layer.register_parameter(name, parameter)
    for name, buffer in former._buffers.items():
        layer.register_buffer(name, buffer)
    return layer.train(former.training)
