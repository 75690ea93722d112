"""Which registered network a list of foreign layers is, and its weights in that network's own names.

Layers are matched by their order and shapes, not by their names. What shapes do not tell (padding, dropout)
often shows in the numbers that layers have inside an nn.Sequential, where layers without weights count too.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cyclegan.networks import build
from cyclegan.networks.layers import PaddingName, blur_downsample, blur_upsample

ResizeName = Literal["resize", "resize_zero", "bilinear", "bilinear_zero"]
_NORM_PARTS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


class Misfit(Exception):
    """Why tensors are not a known network, or what must be said to make them one."""


@dataclass(frozen=True)
class Wishes:
    """What the user says of the network where the tensors do not; None: as the tensors say."""

    norm: Literal["instance", "batch", "none"] | None = None
    padding: PaddingName | None = None
    upsample: ResizeName | None = None
    dropout: bool | None = None


@dataclass
class Layer:
    """A convolution, and the normalization and the fixed blur filter between it and the next one."""

    name: str
    weight: Tensor
    bias: Tensor | None = None
    norm: dict[str, Tensor] = field(default_factory=dict)
    norm_name: str = ""
    blur: Tensor | None = None

    @property
    def place(self) -> tuple[str, int | None]:
        """Its nn.Sequential and its number there; None where its own name is a word."""
        container, _, last = self.name.rpartition(".")
        return container, int(last) if last.isdigit() else None


@dataclass(frozen=True)
class Recognised:
    """A registered network that holds the foreign weights; ``notes`` say what was taken as given."""

    name: str
    arguments: dict[str, Any]
    network: nn.Module
    notes: tuple[str, ...]


def list_layers(tensors: Mapping[str, Tensor]) -> list[Layer]:
    """Convolutions in order, each with what follows it.

    Raises:
        Misfit: a tensor that is no part of a convolution, a normalization or a blur filter.
    """
    modules: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        module, _, part = name.rpartition(".")
        modules.setdefault(module, {})[part] = tensor
    layers: list[Layer] = []
    for name, parts in modules.items():
        weight = parts.get("weight")
        if weight is not None and weight.ndim == 4 and parts.keys() <= {"weight", "bias"}:
            layers.append(Layer(name, weight, parts.get("bias")))
        elif layers and _is_norm(parts):
            if layers[-1].norm:
                raise Misfit(f"{name} is a second normalization after {layers[-1].name}")
            layers[-1].norm = {part: tensor for part, tensor in parts.items() if tensor.ndim == 1}
            layers[-1].norm_name = name
        elif layers and parts.keys() == {"filt"} and layers[-1].blur is None:
            layers[-1].blur = parts["filt"]
        else:
            raise Misfit(f"{name}.{next(iter(parts))} is no part of a convolution or a normalization")
    return layers


def _is_norm(parts: dict[str, Tensor]) -> bool:
    """A scale always has its shift; without one it may be the slopes of a PReLU."""
    vectors = parts.keys() <= _NORM_PARTS and all(part.ndim <= 1 for part in parts.values())
    return vectors and ("weight" in parts) == ("bias" in parts)


def registered_shape(layers: list[Layer]) -> tuple[str, dict[str, Any]]:
    """The registered network, and its arguments, whose convolutions have these shapes in this order.

    Raises:
        Misfit: none has; the message names the layer where the nearest one differs.
    """
    nearest_miss, reached = "it has too few layers", -1
    for name, arguments in _proposals(layers):
        with torch.device("meta"):
            ours = list_layers(build("generator", name, arguments).state_dict())
        shapes = [tuple(layer.weight.shape) for layer in ours]
        same = 0
        for layer, shape in zip(layers, shapes, strict=False):
            if tuple(layer.weight.shape) != shape:
                break
            same += 1
        if same == len(layers) == len(shapes):
            return name, arguments
        if same > reached:
            reached = same
            nearest_miss = f"it has {len(layers)} convolutions, {name} would have {len(shapes)}"
            if same < min(len(layers), len(shapes)):
                has, wants = (_spell(shape) for shape in (layers[same].weight.shape, shapes[same]))
                nearest_miss = f"{layers[same].name} is {has}, in {name} it would be {wants}"
    raise Misfit(nearest_miss)


def _spell(shape: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in shape)


def _proposals(layers: list[Layer]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The networks that the first convolution and the number of them allow."""
    if not layers:
        return
    filters, channels, kernel = layers[0].weight.shape[:3]
    first = {"channels": channels, "filters": filters}
    # Two convolutions in each block, and six around them.
    if not filters or not channels:
        raise Misfit(f"{layers[0].name} is empty")
    if kernel == 7 and len(layers) >= 6:
        for upsample in ("transpose", "resize"):
            yield "resnet", {**first, "blocks": (len(layers) - 6) // 2, "upsample": upsample}
    elif kernel == 4 and 10 <= len(layers) <= 20:
        yield "unet", {**first, "depth": len(layers) // 2}
    else:
        raise Misfit(f"it begins with {_spell(layers[0].weight.shape)} and has {len(layers)} convolutions")


def recognise(layers: list[Layer], wishes: Wishes) -> Recognised:
    """The network with the foreign weights in it, computing what the foreign one computes.

    Raises:
        Misfit: the shapes fit no network, or the tensors leave something open that ``wishes`` must say.
    """
    name, arguments = registered_shape(layers)
    notes: list[str] = []
    arguments["norm"] = _norm(layers, wishes.norm, notes)
    if name == "resnet":
        arguments |= _resampling(layers, arguments["upsample"], wishes.upsample)
        arguments |= _blocks(layers[3:-3], wishes, notes)
        if layers[0].place[1] != 1:
            notes.append("first and last layer mirrored at the borders, strided layers padded with zeros")
    else:
        for option in ("padding", "upsample"):
            if getattr(wishes, option) is not None:
                raise Misfit(f"is a U-Net, which has no --{option}; leave that out")
        arguments["dropout"] = bool(wishes.dropout)
        if wishes.dropout is None:
            notes.append("no dropout while training, which does not change translations (--dropout True)")
    network = build("generator", name, arguments)
    try:
        network.load_state_dict(_renamed(layers, network.state_dict()))
    except RuntimeError as error:
        raise Misfit(f"does not fit {name} ({' '.join(str(error).split())[:200]})") from error
    return Recognised(name, arguments, network.eval(), tuple(notes))


def _norm(layers: list[Layer], asked: str | None, notes: list[str]) -> str:
    """The kind of normalization: which of its tensors are there, and whether convolutions have biases."""
    parts = {part for layer in layers for part in layer.norm}
    has_scale, has_statistics = "weight" in parts, {"running_mean", "running_var"} <= parts
    if asked == "none" and parts:
        raise Misfit("has tensors of a normalization, so --norm none cannot be; leave it out")
    if asked == "batch" and not has_statistics:
        raise Misfit("has no running statistics, so --norm batch cannot be; leave it out")
    if asked is None:
        asked = _inferred_norm(has_scale, has_statistics, layers[0].bias is not None, notes)
    if asked == "instance" and has_scale:
        return "instance_affine"
    return asked


def _inferred_norm(has_scale: bool, has_statistics: bool, has_bias: bool, notes: list[str]) -> str:
    # pix2pix' and CycleGAN's code gives convolutions a bias before instance norm and at no other time.
    if has_scale and has_statistics:
        if has_bias:
            raise Misfit(
                "its normalization has scales and running statistics, and its convolutions have biases; say "
                "--norm batch (it uses those statistics) or --norm instance (it uses each image's own)"
            )
        notes.append("batch norm with its running statistics (--norm instance: each image's own)")
        return "batch"
    if has_statistics:
        notes.append("running statistics left out: each image's own are used (--norm batch: the file's)")
    elif not has_scale and not has_bias:
        raise Misfit("has no trace of a normalization; say --norm instance or --norm none")
    elif not has_scale:
        notes.append("instance norm without parameters (--norm none if there is none)")
    return "instance"


def _resampling(layers: list[Layer], upsample: str, asked: str | None) -> dict[str, str]:
    """How ResNets halve and double: blur filters show it, and so do the numbers of the layers."""
    # CUT blurs after a layer on the way down, and before a layer on the way up.
    blurred_down = _is_blurred(layers[1:3], blur_downsample)
    blurred_up = _is_blurred(layers[-4:-2], blur_upsample)
    if sum(layer.blur is not None for layer in layers) != 2 * (blurred_down + blurred_up):
        raise Misfit("has blur filters where no known network has them")
    if blurred_up:
        if upsample == "transpose":
            raise Misfit("has blur filters before transposed convolutions, as no known network has them")
        upsample = "blur"
    elif upsample != "transpose":
        if asked is None:
            choices = " or ".join(f"--upsample {name}" for name in _resizes(*layers[-3:-1]))
            raise Misfit(f"does not tell how it enlarges; say {choices}")
        return {"downsample": "blur" if blurred_down else "stride", "upsample": asked}
    if asked is not None:
        raise Misfit(f"enlarges by {upsample!r}, as its tensors tell; leave --upsample out")
    return {"downsample": "blur" if blurred_down else "stride", "upsample": upsample}


def _is_blurred(layers: list[Layer], blur: Callable[[int], nn.Module]) -> bool:
    """Whether each of the layers is followed by ``blur``."""
    if any(layer.blur is None for layer in layers):
        return False
    for layer in layers:
        known = blur(len(layer.blur)).weight
        if layer.blur.shape != known.shape or not torch.allclose(layer.blur.float(), known, atol=1e-3):
            raise Misfit(f"has a blur filter after {layer.name} that is not known here")
    return True


def _distance(layer: Layer, other: Layer) -> int | None:
    """How many numbers lie between two layers of one nn.Sequential."""
    (container, number), (other_container, other_number) = layer.place, other.place
    if container != other_container or number is None or other_number is None:
        return None
    return other_number - number


def _resizes(layer: Layer, other: Layer) -> tuple[str, ...]:
    """What may double: convolution, norm, ReLU, enlarging, [pad], convolution."""
    mirrored, zero = ("resize", "bilinear"), ("resize_zero", "bilinear_zero")
    return {4: zero, 5: mirrored}.get(_distance(layer, other) or 0, mirrored + zero)


def _blocks(layers: list[Layer], wishes: Wishes, notes: list[str]) -> dict[str, Any]:
    """Padding and dropout of blocks: [pad], convolution, norm, ReLU, [dropout], [pad], convolution, norm."""
    pairs = {
        (first.place[1], _distance(first, second))
        for first, second in zip(layers[::2], layers[1::2], strict=True)
    }
    number, distance = next(iter(pairs)) if len(pairs) == 1 else (None, None)
    if number not in (0, 1) or distance not in (3 + number, 4 + number):
        if layers and wishes.padding is None:
            raise Misfit(
                "the layers' names do not tell how its blocks are padded; say --padding reflect, --padding "
                "replicate or --padding zero"
            )
        return {"padding": wishes.padding or "reflect", "dropout": bool(wishes.dropout)}
    dropout = distance == 4 + number
    if wishes.dropout not in (None, dropout):
        raise Misfit(f"has {'a' if dropout else 'no'} dropout in its blocks; leave --dropout out")
    padding = "reflect" if number == 1 else "zero"
    if wishes.padding is None:
        notes.append(
            "blocks mirrored at the borders (--padding replicate if they repeat them)"
            if number == 1
            else "blocks padded with zeros (--padding reflect if their convolutions mirror the borders)"
        )
    return {"padding": wishes.padding or padding, "dropout": dropout}


def _renamed(theirs: list[Layer], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The foreign weights by our names; what one side has and the other need not is made up or folded."""
    renamed = dict(ours)
    parts = {part for layer in theirs for part in layer.norm}
    for layer, mine in zip(theirs, list_layers(ours), strict=True):
        renamed[f"{mine.name}.weight"] = _numbers(layer.weight, layer)
        bias = None if layer.bias is None else _numbers(layer.bias, layer)
        if mine.bias is not None:
            renamed[f"{mine.name}.bias"] = torch.zeros_like(mine.bias) if bias is None else bias
        elif bias is not None and not mine.norm:
            raise Misfit(f"{layer.name} has a bias, where the network has none")
        if "weight" in layer.norm and not mine.norm:
            raise Misfit(f"has a normalization after {layer.name}, where the network has none")
        lacks = (parts & mine.norm.keys()) - layer.norm.keys()
        if lacks:
            raise Misfit(f"has no {min(lacks)} of a normalization after {layer.name}")
        for part in mine.norm:
            if part in layer.norm:
                renamed[f"{mine.norm_name}.{part}"] = _numbers(layer.norm[part], layer)
        if mine.bias is None and bias is not None:
            # x + bias, less the mean, is x less (mean - bias).
            renamed[f"{mine.norm_name}.running_mean"] -= bias
    return renamed


def _numbers(tensor: Tensor, layer: Layer) -> Tensor:
    if not tensor.is_floating_point() or not tensor.isfinite().all():
        raise Misfit(f"{layer.name} holds values that are not finite numbers")
    return tensor.detach().to(torch.float32, copy=True)
