"""Networks by name. A new one is a file here and a line in a registry.

A network's constructor is its settings: the keyword arguments, their types and their defaults.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, ValidationError, create_model

from cyclegan.errors import BadInput, nearest

if TYPE_CHECKING:
    from torch import nn

GENERATORS = {
    "resnet": "cyclegan.networks.resnet:ResnetGenerator",
    "unet": "cyclegan.networks.unet:UnetGenerator",
    "vit_unet": "cyclegan.networks.vit_unet:VitUnet",
    "modnet": "cyclegan.networks.modnet:ModNet",
}
DISCRIMINATORS = {
    "patchgan": "cyclegan.networks.patchgan:PatchGAN",
    "pixel": "cyclegan.networks.pixel:PixelGAN",
    "multiscale": "cyclegan.networks.multiscale:MultiScalePatchGAN",
    "projected": "cyclegan.networks.projected:ProjectedPatchGAN",
    "batch_statistics": "cyclegan.networks.batch_statistics:BatchStatisticsPatchGAN",
}


def build(kind: str, name: str, arguments: Mapping[str, Any]) -> "nn.Module":
    """Make a registered network with fresh weights.

    Args:
        kind: ``generator`` or ``discriminator``.
        name: a name from the registry.
        arguments: keyword arguments of its constructor; what is left out takes its default.

    Raises:
        BadInput: no such network, no such argument, or a value of the wrong type; the message names
            the setting as recipes spell it.
    """
    network = _class(kind, name)
    return network(**_checked(kind, name, network, arguments))


def fitted(kind: str, name: str, arguments: Mapping[str, Any], size: int) -> dict[str, Any]:
    """Arguments for training at ``size`` pixels: what the recipe leaves open and the size decides.

    ``attention`` comes in as the side of a feature map at that size, as recipes name it, and goes out as
    the image's side in units of that.

    Raises:
        BadInput: no such network, or no feature map of that side.
    """
    for_size = getattr(_class(kind, name), "for_size", None)
    found = {**(for_size(size) if for_size else {}), **arguments}
    side = found.get("attention")
    if side is not None:
        share = size // side
        if side * share != size or share & (share - 1):
            sides = ", ".join(str(size >> halvings) for halvings in range(4) if size % 2**halvings == 0)
            raise BadInput(
                f"{kind}.attention: at size {size} no feature map has {side} pixels a side, but halves of "
                f"halves of the size: {sides}"
            )
        found["attention"] = share
    return found


def settings_of(kind: str, name: str) -> frozenset[str]:
    """What the constructor of a registered network takes.

    Raises:
        BadInput: no such network.
    """
    return frozenset(inspect.signature(_class(kind, name)).parameters)


def _class(kind: str, name: str) -> Any:
    registry = {"generator": GENERATORS, "discriminator": DISCRIMINATORS}[kind]
    if name not in registry:
        raise BadInput(
            f"{kind}.name: there is no {name!r}{nearest(name, registry)} (known: {', '.join(registry)})"
        )
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def _checked(kind: str, name: str, network: type, arguments: Mapping[str, Any]) -> dict[str, Any]:
    parameters = inspect.signature(network).parameters
    for key in arguments:
        if key not in parameters:
            raise BadInput(
                f"{kind}.{key}: the {kind} {name!r} has no such setting{nearest(key, parameters)} "
                f"(it has: {', '.join(parameters)})"
            )
    fields = {key: (p.annotation, p.default) for key, p in parameters.items()}
    schema = create_model(name, __config__=ConfigDict(strict=True), **fields)
    try:
        return schema(**arguments).model_dump()
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(f"{kind}.{first['loc'][0]}: {first['msg']}, not {first['input']!r}") from error
