"""Self-attention over the positions of a feature map (SAGAN, Zhang et al. 2019, §3)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.errors import BadInput


class SelfAttention(nn.Module):
    """x + gamma * v(attention of f(x), g(x), h(x)) over all positions of (N, C, H, W).

    f, g, h and v are 1x1 convolutions to and from C / 8 features, and logits are not scaled (eq. 1 to 3).
    gamma begins at 0, so that the network learns from near to far, and so that a network with it begins as
    the one without.
    """

    attends_to_all = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.f, self.g, self.h = (nn.Conv2d(channels, inner, 1) for _ in "fgh")
        self.v = nn.Conv2d(inner, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        # Eq. 1: position j asks with g, positions i answer with f.
        # A position's features side by side: fused kernels, which keep no map of all pairs, ask for that.
        parts = (part(x).flatten(2).transpose(1, 2).contiguous() for part in (self.g, self.f, self.h))
        query, key, value = (part[:, None] for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        # Whole, for torch.export would take a batch of one for a memory layout of its own.
        seen = seen[:, 0].transpose(1, 2).contiguous()
        return x + self.gamma * self.v(seen.unflatten(2, x.shape[2:]))


def attention_at(wanted: int, here: int, channels: int) -> list[nn.Module]:
    """A layer of self-attention where the image's side is ``here`` times the map's, if that is wanted."""
    return [SelfAttention(channels)] if wanted == here else []


class NoSuchMap(BadInput):
    """Self-attention at a resolution that a network does not have; ``available`` are those it has."""

    def __init__(self, wanted: int, available: Sequence[int]) -> None:
        self.available = sorted(available)
        known = ", ".join("all" if share == 1 else f"1/{share}" for share in self.available)
        super().__init__(
            f"attention: this network has no feature map of 1/{wanted} of the image's side (it has: {known})"
        )


def check_attention(wanted: int, available: Sequence[int]) -> None:
    """Raise NoSuchMap for self-attention at a resolution that a network does not have."""
    if wanted and wanted not in available:
        raise NoSuchMap(wanted, available)


def attends_to_all(network: nn.Module) -> bool:
    """Whether a layer lets each position look at every other: such a network takes images whole."""
    return any(getattr(module, "attends_to_all", False) for module in network.modules())
