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
}
DISCRIMINATORS = {"patchgan": "cyclegan.networks.patchgan:PatchGAN"}


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
    registry = {"generator": GENERATORS, "discriminator": DISCRIMINATORS}[kind]
    if name not in registry:
        raise BadInput(
            f"{kind}.name: there is no {name!r}{nearest(name, registry)} (known: {', '.join(registry)})"
        )
    module, _, attribute = registry[name].partition(":")
    network = getattr(importlib.import_module(module), attribute)
    return network(**_checked(kind, name, network, arguments))


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
