"""The networks of a run as the settings name them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.networks import build, fitted, settings_of
from cyclegan.networks.attention import NoSuchMap
from cyclegan.networks.layers import Dropout, initialize
from cyclegan.networks.projection import PatchProjection


def network_settings(settings: TrainSettings, kind: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the generators or the discriminators, with what the training size decides."""
    chosen = getattr(settings, kind).model_dump(exclude_none=True)
    name = chosen.pop("name")
    return name, fitted(kind, name, {"channels": settings.data.channels, **chosen}, settings.size)


def build_networks(settings: TrainSettings) -> dict[str, nn.Module]:
    """The networks by name, their first weights drawn from N(0, 0.02) by the run's seed.

    A generator for each direction, a discriminator for each domain that is translated to (D_A and D_B; of
    one direction D_B), and ``F``, the heads of PatchNCE, where the method compares patches.
    """
    discriminators = [f"D_{side}" for side in sorted(way[-1] for way in settings.directions.values())]
    networks: dict[str, nn.Module] = {}
    for name in (*settings.directions, *discriminators):
        kind = "generator" if name.startswith("G") else "discriminator"
        chosen, arguments = network_settings(settings, kind)
        try:
            networks[name] = _drawn(settings.seed, name, build, kind, chosen, arguments)
        except NoSuchMap as error:
            sides = ", ".join(str(settings.size // share) for share in error.available)
            raise BadInput(
                f"{kind}.attention: at size {settings.size} the {kind} {chosen!r} has no feature map of "
                f"{getattr(settings, kind).attention} pixels a side (it has: {sides})"
            ) from error
        if kind == "generator" and settings.size % networks[name].multiple_of:
            raise BadInput(
                f"size: must be a multiple of {networks[name].multiple_of} for the generator "
                f"{settings.generator.name!r}, not {settings.size}"
            )
        if arguments.get("dropout") and not any(isinstance(m, Dropout) for m in networks[name].modules()):
            raise BadInput(
                f"generator.dropout: {chosen!r} has it from its fifth halving on, but not at the last, and "
                f"at size {settings.size} there are five; take a multiple of 64, or leave it out"
            )
        if kind == "discriminator" and settings.size < networks[name].smallest:
            known = settings_of(kind, chosen)
            of_depth = [f"discriminator.{each}" for each in ("layers", "scales") if each in known]
            raise BadInput(
                f"size: must be {networks[name].smallest} or more for the discriminator {chosen!r}, as deep "
                f"as it is, which leaves nothing of {settings.size}; {' and '.join(of_depth)} may be fewer"
            )
    if settings.method != "cyclegan":
        widths = list(patch_widths(settings).values())
        networks["F"] = _drawn(settings.seed, "F", PatchProjection, widths, settings.nce.features)
    return networks


def _drawn(seed: int, name: str, make: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(chance.seed_for(seed, f"weights {name}", 0) % 2**63)
        return initialize(make(*arguments))


def patch_widths(settings: TrainSettings) -> dict[int, int]:
    """The generator's maps that PatchNCE compares, by their numbers, with their features.

    Raises:
        BadInput: the generator does not give its maps, has none of that number, or one of a single pixel.
    """
    name, arguments = network_settings(settings, "generator")
    with torch.device("meta"):
        generator = build("generator", name, arguments)
        if not hasattr(generator, "encode"):
            raise BadInput(
                f"generator.name: {name!r} does not give the maps that method {settings.method!r} compares; "
                "take another generator or method cyclegan"
            )
        image = torch.zeros(1, settings.data.channels, settings.size, settings.size)
        maps = list(generator.encode(image))
    chosen = settings.nce.layers
    if chosen is None:
        chosen = [min(layer, len(maps) - 1) for layer in generator.patch_layers]
    for layer in chosen:
        if not 0 <= layer < len(maps):
            raise BadInput(
                f"nce.layers: the generator {name!r} has the maps 0 to {len(maps) - 1} here, not {layer}"
            )
        if maps[layer][0, 0].numel() < 2:
            raise BadInput(
                f"nce.layers: map {layer} has one place, and nothing to be told from; leave it out"
            )
    if not chosen:
        raise BadInput("nce.layers: names no map; name one or more, or leave it out")
    return {layer: maps[layer].shape[1] for layer in sorted(set(chosen))}
