"""The heads that bring patches of all layers into one space (CUT, arXiv 2007.15651, §3; after SimCLR)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-7  # CUT's


class PatchProjection(nn.Module):
    """For each layer a perceptron of two layers; it is trained with the generator and not shared.

    Args:
        widths: features of each layer's patches.
        features: of what comes out.
    """

    def __init__(self, widths: Sequence[int], features: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(width, features), nn.ReLU(), nn.Linear(features, features))
            for width in widths
        )

    def forward(self, patches: Sequence[Tensor]) -> list[Tensor]:
        """(N, P, width) of each layer to (N, P, features) of unit length."""
        made = (head(patch) for head, patch in zip(self.heads, patches, strict=True))
        return [F.normalize(x.float(), dim=-1, eps=EPSILON) for x in made]
