"""Generator pre-training: completing masked pictures (UVCGAN, arXiv 2203.02557, §3.3)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from cyclegan import chance
from cyclegan.config import PretrainSettings


def masks(settings: PretrainSettings, seed: int, name: str, positions: Sequence[int], size: int) -> Tensor:
    """(N, 1, size, size): 0 where a patch is masked, 1 elsewhere, by the images' positions alone."""
    patches = -(-size // settings.patch)
    kept = [
        chance.rng(seed, f"mask {name}", position).random((patches, patches)) >= settings.masked
        for position in positions
    ]
    grid = torch.from_numpy(np.stack(kept)).float()[:, None]
    return grid.repeat_interleave(settings.patch, 2).repeat_interleave(settings.patch, 3)[..., :size, :size]
