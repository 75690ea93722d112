"""Spectral normalization (Miyato et al. 2018): every weight divided by its largest singular value."""

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize


def normalize_spectrally(network: nn.Module) -> nn.Module:
    """Normalize all convolutions and linear layers of ``network``, in place.

    The singular value is estimated by one power iteration a pass in training (Miyato et al., algorithm 1);
    its vectors are buffers, and so part of a checkpoint.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrizations.spectral_norm(module)
    return network


def is_normalized(module: nn.Module) -> bool:
    return parametrize.is_parametrized(module, "weight")


@torch.no_grad()
def set_weight(module: nn.Module, weight: Tensor) -> None:
    """Give a normalized layer another weight, and its estimate the time to follow."""
    module.weight = weight
    for _ in range(15):  # as many as torch begins with
        module.weight  # noqa: B018 - reading it in training mode is one power iteration
