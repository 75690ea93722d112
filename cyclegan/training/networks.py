"""The four networks as the settings name them."""

from typing import Any

import torch
from torch import nn

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.networks import build, fitted
from cyclegan.networks.layers import initialize

NAMES = ("G_AB", "G_BA", "D_A", "D_B")


def network_settings(settings: TrainSettings, kind: str) -> tuple[str, dict[str, Any]]:
    """Name and arguments of the generators or the discriminators, with what the training size decides."""
    chosen = getattr(settings, kind).model_dump(exclude_none=True)
    name = chosen.pop("name")
    return name, fitted(kind, name, {"channels": settings.data.channels, **chosen}, settings.size)


def build_networks(settings: TrainSettings) -> dict[str, nn.Module]:
    """The four networks, their first weights drawn from N(0, 0.02) by the run's seed."""
    networks = {}
    for name in NAMES:
        kind = "generator" if name.startswith("G") else "discriminator"
        chosen, arguments = network_settings(settings, kind)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(chance.seed_for(settings.seed, f"weights {name}", 0) % 2**63)
            network = build(kind, chosen, arguments)
            networks[name] = initialize(network)
        if kind == "generator" and settings.size % network.multiple_of:
            raise BadInput(
                f"size: must be a multiple of {network.multiple_of} for the generator "
                f"{settings.generator.name!r}, not {settings.size}"
            )
    return networks
