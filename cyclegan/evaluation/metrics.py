"""Metrics as pure functions of features."""

from collections.abc import Mapping

import torch
from torch import Tensor


def kid(x: Tensor, y: Tensor) -> float:
    """Kernel distance between two sets of features (Binkowski et al. 2018, §3): unbiased MMD^2.

    The kernel is (x.y / d + 1)^3. Unbiased, so that it is comparable across set sizes and can fall
    below 0 for sets that are alike; computed over all pairs, so that nothing is drawn by chance.

    Args:
        x, y: (N, d) and (M, d), N and M at least 2.
    """
    x, y = x.double(), y.double()
    d = x.shape[1]
    k_xx, k_yy, k_xy = ((p @ q.T / d + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    within_x = (k_xx.sum() - k_xx.diagonal().sum()) / (n * (n - 1))
    within_y = (k_yy.sum() - k_yy.diagonal().sum()) / (m * (m - 1))
    return float(within_x + within_y - 2 * k_xy.mean())


def perceptual_distance(x: Mapping[str, Tensor], y: Mapping[str, Tensor]) -> Tensor:
    """Distance of images pair by pair, by their activations (Zhang et al. 2018, eq. 1, with w = 1).

    Each position's channels are scaled to unit length; squared differences are averaged over
    positions and layers.

    Args:
        x, y: activations (N, C, H, W) by layer, of the same layers.

    Returns:
        (N,) distances, 0 for equal images.
    """
    total = torch.zeros(len(next(iter(x.values()))))
    for layer in x:
        a, b = (f / (f.norm(dim=1, keepdim=True) + 1e-10) for f in (x[layer], y[layer]))
        total += (a - b).square().sum(dim=1).mean(dim=(1, 2)).cpu()
    return total / len(x)
