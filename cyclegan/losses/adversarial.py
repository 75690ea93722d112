"""Adversarial losses by name. Scores are a discriminator's raw outputs, of any shape.

A new one is a pair of functions here and a line in ``ADVERSARIAL``.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


class AdversarialLoss(NamedTuple):
    """What the generator minimizes on fakes, and the discriminator on reals and fakes."""

    generator: Callable[[Tensor], Tensor]
    discriminator: Callable[[Tensor, Tensor], Tensor]


def _lsgan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    # Halved, to slow D relative to G (CycleGAN §7.1).
    return 0.5 * ((real - 1).square().mean() + fake.square().mean())


def _vanilla_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def _wgan_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return fake.mean() - real.mean()


ADVERSARIAL = {
    # Mao et al. 2017, the paper's choice (CycleGAN §4)
    "lsgan": AdversarialLoss(lambda fake: (fake - 1).square().mean(), _lsgan_discriminator),
    # Goodfellow et al. 2014, the non-saturating form
    "vanilla": AdversarialLoss(lambda fake: F.softplus(-fake).mean(), _vanilla_discriminator),
    # Lim and Ye 2017
    "hinge": AdversarialLoss(lambda fake: -fake.mean(), _hinge_discriminator),
    # Gulrajani et al. 2017; the discriminator also pays ``gradient_penalty``
    "wgan-gp": AdversarialLoss(lambda fake: -fake.mean(), _wgan_discriminator),
}


Scores = Tensor | tuple[Tensor, ...]
Discriminator = Callable[[Tensor], Scores]


def scales(scores: Scores) -> tuple[Tensor, ...]:
    """A discriminator's scores at each of its scales; most have one."""
    return scores if isinstance(scores, tuple) else (scores,)


@contextlib.contextmanager
def _second_derivatives(device: str) -> Iterator[None]:
    """What is computed here can be derived twice, on ``device``.

    Fused attention cannot. At fp16 a norm's second derivative has the third power of 1 / deviation, which is
    past 65,504 from deviations of 0.1 on, and maps begin with some hundredths: no scale of the loss, which
    comes afterwards, brings that back, so that such a pass is at fp32.
    """
    in_half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    at_fp32 = torch.autocast(device, enabled=False) if in_half else contextlib.nullcontext()
    with sdpa_kernel(SDPBackend.MATH), at_fp32:
        yield


def _gradient(discriminator: Discriminator, x: Tensor) -> Tensor:
    """Of each image's mean score, summed over scales, which is the D of the penalties; like ``x``.

    It can be derived again, for penalties are part of a loss.
    """
    x = x.detach().requires_grad_(True)
    with _second_derivatives(x.device.type):
        found = scales(discriminator(x))
    # A mean's gradients are as many times smaller as there are patches, too small for fp16; so they are taken
    # of a sum, which fp16 could not hold either, and divided afterwards.
    scores = [score.to(torch.promote_types(score.dtype, torch.float32)) for score in found]
    patches = max(score[0].numel() for score in scores)
    total = torch.stack([score.flatten(1).mean(dim=1).sum() * patches for score in scores]).sum()
    return torch.autograd.grad(total, x, create_graph=True)[0] / patches


def gradient_penalty(discriminator: Discriminator, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E[(|grad D(x)| - 1)^2] at x between real and fake (Gulrajani et al. 2017, eq. 3).

    D is each image's mean score, the value that ``wgan-gp`` compares. The gradient of the sum of its scores,
    which the reference code's function takes, is as many times steeper as there are patches: held to one, it
    leaves the mean hardly any slope, and generators nothing to follow.

    Args:
        discriminator: maps (N, C, H, W) to scores, (N, ...).
        real, fake: (N, C, H, W).
        mix: (N, 1, 1, 1) in [0, 1], the share of ``real`` in each x.
    """
    gradient = _gradient(discriminator, mix * real + (1 - mix) * fake)
    return (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(discriminator: Discriminator, real: Tensor) -> Tensor:
    """E[|grad D(x)|^2] at real images (Mescheder et al. 2018, eq. 9, without its factor 1/2).

    D as in ``gradient_penalty``. Keeps a discriminator smooth, so that fakes are pushed towards the target's
    look rather than towards noise that happens to please it.
    """
    return _gradient(discriminator, real).square().sum(dim=(1, 2, 3)).mean()


def zero_centred_penalty(discriminator: Discriminator, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """E[|grad D(x)|^2] at x between real and fake (UVCGANv2, arXiv 2303.16280, §3.3; D as in ``r1_penalty``).

    Arguments as of ``gradient_penalty``; UVCGANv2's weight is 1 for images in [0, 1], so 4 for ours.
    """
    return r1_penalty(discriminator, mix * real + (1 - mix) * fake)
