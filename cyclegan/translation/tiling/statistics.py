"""Instance norm whose mean and variance belong to the image, not to the tile.

Instance norm (Ulyanov et al. 2016) sees one tile at a time and normalizes each by its own contrast, so
that neighbours disagree. Here the statistics of every layer are gathered once, from patches spread over
the whole image that go through the network together, and are then the same for all tiles.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SharedInstanceNorm(nn.Module):
    """Normalizes by statistics that the first batch it sees leaves behind, over all of that batch."""

    def __init__(self, norm: nn.InstanceNorm2d) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.mean: Tensor | None = None
        self.variance: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.mean is None:
            self.variance, self.mean = torch.var_mean(x.float(), dim=(0, 2, 3), correction=0)
        # Half-precision images are normalized by fp32 numbers; torch wants all of these alike.
        weight, bias = (None if p is None else p.to(self.mean.dtype) for p in (self.weight, self.bias))
        return F.batch_norm(x, self.mean, self.variance, weight, bias, training=False, eps=self.eps)


def depends_on_all_pixels(network: nn.Module) -> bool:
    """Whether a layer normalizes by statistics of the image before it."""
    return any(_is_instance_norm(module) for module in network.modules())


def with_statistics_of(network: nn.Module, patches: Tensor) -> nn.Module:
    """A copy of ``network`` (weights shared) that normalizes every image by the statistics of ``patches``.

    Args:
        network: in evaluation mode.
        patches: (N, C, H, W) in [-1, 1], taken together as a sample of one image.
    """
    # The copy shares its tensors: a second set of weights would be memory for nothing.
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    steady = copy.deepcopy(network, shared)
    for parent in list(steady.modules()):
        for name, child in parent.named_children():
            if _is_instance_norm(child):
                setattr(parent, name, SharedInstanceNorm(child))
    with torch.no_grad():
        steady(patches)
    return steady


def _is_instance_norm(module: nn.Module) -> bool:
    return isinstance(module, nn.InstanceNorm2d) and not module.track_running_stats
