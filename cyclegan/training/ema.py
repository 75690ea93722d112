"""Exponential moving averages of the generators: what is sampled, saved and shared."""

import torch
from torch import nn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, decay: float, step: int) -> None:
    """average <- d * average + (1 - d) * network, batch norm's running statistics as well.

    d = min(decay, (1 + step) / (10 + step)), so that early averages forget the random start.
    """
    decay = min(decay, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
    for kept, current in zip(average.buffers(), network.buffers(), strict=True):
        if kept.is_floating_point():
            kept.lerp_(current, 1 - decay)
        else:
            kept.copy_(current)
