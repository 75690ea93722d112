"""Distances between two sets of images, as pure functions of their features."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from cyclegan.errors import optional
from cyclegan.losses import l1, psnr
from cyclegan.networks.deployed import one_thread

_NORMAL_95 = 1.96
_ROWS = 256  # of a table of distances at a time


def kid(x: Tensor, y: Tensor) -> float:
    """Kernel distance between two sets of features (Binkowski et al. 2018, §3): unbiased MMD^2.

    The kernel is (x.y / d + 1)^3. Unbiased, so that it is comparable across set sizes and can fall
    below 0 for sets that are alike; computed over all pairs, so that nothing is drawn by chance. It is
    what the mean over random subsets, as papers compute it, tends to.

    Args:
        x, y: (N, d) and (M, d), N and M at least 2.
    """
    return kid_with_interval(x, y)[0]


def kid_with_interval(x: Tensor, y: Tensor) -> tuple[float, tuple[float, float] | None]:
    """``kid``, and its 95 % confidence interval over the choice of the images.

    The interval is the jackknife's (Arvesen 1969, on U-statistics): the distance without each one of the
    images, once for each set. Nothing is drawn by chance here either. Sets of two have none.

    Args:
        x, y: (N, d) and (M, d), N and M at least 2.
    """
    x, y = x.double(), y.double()
    d = x.shape[1]
    k_xx, k_yy, k_xy = ((p @ q.T / d + 1) ** 3 for p, q in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    rows_x = k_xx.sum(dim=1) - k_xx.diagonal()
    rows_y = k_yy.sum(dim=1) - k_yy.diagonal()
    total_x, total_y, across = rows_x.sum(), rows_y.sum(), k_xy.sum()
    within_x, within_y = total_x / (n * (n - 1)), total_y / (m * (m - 1))
    value = float(within_x + within_y - 2 * across / (n * m))
    if min(n, m) < 3:
        return value, None
    without_x = (total_x - 2 * rows_x) / ((n - 1) * (n - 2)) - 2 * (across - k_xy.sum(1)) / ((n - 1) * m)
    without_y = (total_y - 2 * rows_y) / ((m - 1) * (m - 2)) - 2 * (across - k_xy.sum(0)) / (n * (m - 1))
    variances = ((len(w) - 1) * w.var(correction=0) for w in (without_x, without_y))
    reach = _NORMAL_95 * float(sum(variances)) ** 0.5
    return value, (value - reach, value + reach)


class _Given(nn.Module):
    """Stands in torchmetrics where a network would be: the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def fid(x: Tensor, y: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features (Heusel et al. 2017, eq. 6).

    Biased: it falls as the sets grow, and below a few thousand images, or where there are fewer images
    than features, it compares only with figures from sets of the same size.

    Args:
        x, y: (N, d) and (M, d), N and M at least 2.
    """
    package = optional("torchmetrics.image.fid", "eval", "the Fréchet distance")
    # While training, one process of several judges: to wait for the others' features would be for ever.
    given = _Given(x.shape[1])
    metric = package.FrechetInceptionDistance(feature=given, sync_on_compute=False)
    metric.set_dtype(torch.float64)
    metric.update(y.double().cpu(), real=True)
    metric.update(x.double().cpu(), real=False)
    # Eigenvalues of 448 x 448 took 6.3 s on two threads beside two other processes, and 0.07 s on one.
    with one_thread():
        # Rounding takes the distance of equal sets a hair below 0.
        return max(0.0, float(metric.compute()))


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


def pixel_agreement(images: Tensor, truth: Tensor) -> dict[str, Tensor]:
    """L1 (values 0 to 1), PSNR in dB and SSIM (Wang et al. 2004) of images pair by pair.

    Args:
        images, truth: (N, C, H, W) in [-1, 1]; what lies outside is clipped, as a file does.

    Returns:
        ``l1``, ``psnr``, ``ssim``, each (N,).
    """
    ssim = optional("torchmetrics.functional.image", "eval", "SSIM").structural_similarity_index_measure
    x, y = ((t.clamp(-1, 1) + 1) / 2 for t in (images, truth))
    return {
        "l1": l1(x, y),
        "psnr": psnr(x, y),
        "ssim": ssim(x, y, data_range=1.0, reduction="none").reshape(-1),
    }


def mean_pairwise_distance(x: Tensor) -> float:
    """Mean Euclidean distance over all pairs of two different rows of (N, d), N at least 2."""
    total = sum(float(_distances(part, x).sum()) for part in x.split(_ROWS))
    return total / (len(x) * (len(x) - 1))


def nearest(x: Tensor, y: Tensor, itself: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The nearest row of ``y`` for each row of ``x``.

    Args:
        x, y: (N, d) and (M, d).
        itself: (N,) rows of ``y`` that ``x``'s own are; they are passed over.

    Returns:
        (N,) Euclidean distances and (N,) indices into ``y``.
    """
    distances = torch.cat([_distances(part, y) for part in x.split(_ROWS)])
    if itself is not None:
        distances[torch.arange(len(x)), itself] = torch.inf
    found = distances.min(dim=1)
    return found.values, found.indices


def _distances(x: Tensor, y: Tensor) -> Tensor:
    """(N, M); by matrix products, in double precision so that equal rows are within 1e-7 of each other."""
    return torch.cdist(x.double(), y.double(), compute_mode="use_mm_for_euclid_dist")
