"""PatchNCE: a patch of a translation is told from others by what it was made of (CUT, arXiv 2007.15651)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def patch_nce(queries: Tensor, keys: Tensor, temperature: float = 0.07) -> Tensor:
    """Cross-entropy of finding each query's own key among all keys of its image (CUT, eqs. 2 and 3).

    Args:
        queries: (N, P, C) of unit length, P patches of each translation.
        keys: (N, P, C) of unit length, the same places of each input; they take no gradient.
        temperature: by which the similarities are divided.
    """
    # Not under autocast: divided by the temperature, half precision's rounding would be a tenth.
    with torch.autocast(queries.device.type, enabled=False):
        similarities = queries.float() @ keys.detach().float().transpose(1, 2) / temperature
        own = torch.arange(queries.shape[1], device=queries.device).expand(len(queries), -1)
        return F.cross_entropy(similarities.flatten(0, 1), own.flatten())


def patches_at(maps: Tensor, places: Tensor) -> Tensor:
    """The features of some places: (N, C, H, W) and (N, P), each place y * W + x, to (N, P, C)."""
    index = places[:, None].expand(-1, maps.shape[1], -1)
    return maps.flatten(2).gather(2, index).transpose(1, 2)
