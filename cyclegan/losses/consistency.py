"""A picture and its translation look alike from afar (UVCGANv2, Torbunov et al., arXiv 2303.16280)."""

import torch.nn.functional as F
from torch import Tensor


def consistency_loss(fake: Tensor, source: Tensor, side: int) -> Tensor:
    """Mean absolute difference of both, averaged down to ``side`` x ``side``.

    Args:
        fake, source: (N, C, H, W), H and W at least ``side``.
    """
    return F.l1_loss(*(F.adaptive_avg_pool2d(images, side) for images in (fake, source)))
