"""A picture and its translation look alike from afar (UVCGANv2, Torbunov et al., arXiv 2303.16280, §3.4)."""

import torch.nn.functional as F
from torch import Tensor


def consistency_loss(fake: Tensor, source: Tensor, side: int) -> Tensor:
    """Mean absolute difference of both, averaged down to ``side`` x ``side``.

    Args:
        fake, source: (N, C, H, W); no larger than ``side`` they are compared pixel by pixel.
    """
    return F.l1_loss(*(F.adaptive_avg_pool2d(images, side) for images in (fake, source)))
