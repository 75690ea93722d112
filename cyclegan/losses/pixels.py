"""How far two pictures are apart, pixel by pixel."""

from torch import Tensor

EQUAL_DB = 100.0  # the PSNR of equal pictures, not infinity, so that means can be taken


def l1(x: Tensor, y: Tensor) -> Tensor:
    """(N,) mean absolute differences of images (N, ...) pair by pair."""
    return (x - y).abs().flatten(1).mean(dim=1)


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """(N,) peak signal to noise ratios of images (N, ...) with values in [0, 1], in dB, 100 at most."""
    error = (x - y).square().flatten(1).mean(dim=1)
    return -10 * error.clamp(min=10 ** (-EQUAL_DB / 10)).log10()
