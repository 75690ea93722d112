"""Counterfeits for a discriminator: its pictures with the wrong edges (CartoonGAN, Chen et al. 2018).

A discriminator of few pictures may tell a domain by what is on them, and then a generator paints that.
Counterfeits show the same as the true pictures, so that only how they are drawn tells the two apart.
"""

import torch
from torch import Tensor

from cyclegan.networks.layers import blur

SOFT, FINE = 1.5, 2.0  # pixels, standard deviations: of blurred edges, and of what detail is finer than


def counterfeits(images: Tensor, others: Tensor, positions: Tensor) -> Tensor:
    """At even positions images with blurred edges, at odd ones with the detail of the other domain on them.

    The first are CartoonGAN's (§3.2.1), but that the whole image is blurred; the second keep what is drawn
    flat from passing with a photograph's grain.

    Args:
        images, others: (N, C, H, W) in [-1, 1], of the domain that is judged and of the other one.
        positions: (N,), of the images in the order of training.
    """
    blurred = blur(images, SOFT)
    detailed = (images + others - blur(others, FINE)).clamp(-1, 1)
    even = (positions % 2 == 0).view(-1, 1, 1, 1).to(images.device)
    return torch.where(even, blurred, detailed)
