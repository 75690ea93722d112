"""Losses against the papers' formulas, written out in numpy."""

import numpy as np
import pytest
import torch

from cyclegan.losses import ADVERSARIAL, gradient_penalty, r1_penalty, zero_centred_penalty
from cyclegan.networks import build
from cyclegan.networks.layers import initialize

REAL = np.array([0.9, 0.1, -0.4, 1.7])
FAKE = np.array([-0.3, 0.8, 1.2, 0.05])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


FORMULAS = {
    "lsgan": (
        np.mean((FAKE - 1) ** 2),
        0.5 * (np.mean((REAL - 1) ** 2) + np.mean(FAKE**2)),
    ),
    "vanilla": (
        -np.mean(np.log(sigmoid(FAKE))),
        -0.5 * (np.mean(np.log(sigmoid(REAL))) + np.mean(np.log(1 - sigmoid(FAKE)))),
    ),
    "hinge": (
        -np.mean(FAKE),
        0.5 * (np.mean(np.maximum(0, 1 - REAL)) + np.mean(np.maximum(0, 1 + FAKE))),
    ),
    "wgan-gp": (-np.mean(FAKE), np.mean(FAKE) - np.mean(REAL)),
}


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_adversarial_losses(name):
    generator, discriminator = FORMULAS[name]
    loss = ADVERSARIAL[name]
    assert float(loss.generator(torch.tensor(FAKE))) == pytest.approx(generator)
    assert float(loss.discriminator(torch.tensor(REAL), torch.tensor(FAKE))) == pytest.approx(discriminator)


def test_gradient_penalty_of_a_known_gradient():
    """D(x) = w.x has the gradient w everywhere, so the penalty is (|w| - 1)^2."""
    w = torch.tensor([3.0, 0, 4.0]).view(1, 3, 1, 1)
    real, fake = torch.randn(2, 3, 1, 1), torch.randn(2, 3, 1, 1)
    share = torch.rand(2, 1, 1, 1)
    penalty = gradient_penalty(lambda x: (w * x).sum(dim=1, keepdim=True), real, fake, share)
    assert float(penalty) == pytest.approx((5 - 1) ** 2)


def test_gradient_penalty_is_of_the_mean_over_patches_that_the_loss_compares():
    """D(x) = mean of w.x over n positions: the gradient is w / n at each, |w| / sqrt(n) in all."""
    w = torch.tensor([30.0, 0, 40.0]).view(1, 3, 1, 1)
    real, share = torch.randn(2, 3, 5, 5), torch.rand(2, 1, 1, 1)
    penalty = gradient_penalty(lambda x: (w * x).sum(dim=1, keepdim=True), real, real, share)
    assert float(penalty) == pytest.approx((10 - 1) ** 2)


def test_gradient_penalty_is_taken_between_real_and_fake():
    """D(x) = |x|^2 / 2 has the gradient x: the penalty tells where it was taken."""
    real, fake = torch.full((1, 1, 1, 1), 5.0), torch.full((1, 1, 1, 1), 1.0)
    for mix, x in ((1.0, 5.0), (0.0, 1.0), (0.25, 2.0)):
        share = torch.full((1, 1, 1, 1), mix)
        penalty = gradient_penalty(lambda y: y.square() / 2, real, fake, share)
        assert float(penalty.detach()) == pytest.approx((x - 1) ** 2)


def test_r1_of_a_known_gradient():
    """D(x) = mean of w.x over positions, on n of them: the gradient is w / n at each, |w|^2 / n in all."""
    w = torch.tensor([3.0, 0, 4.0]).view(1, 3, 1, 1)
    penalty = r1_penalty(lambda x: (w * x).sum(dim=1, keepdim=True), torch.randn(2, 3, 4, 5))
    assert float(penalty) == pytest.approx(25 / 20)


@pytest.mark.parametrize("side", [8, 256])
def test_penalties_survive_half_precision(side):
    """Of 65,536 scores neither a sum nor a gradient of their mean fits into fp16."""

    def judge(x):
        return (x.half() * 0.5).sum(dim=1, keepdim=True)

    image = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    penalty = r1_penalty(judge, image) * side**2  # |gradient|^2 is 3 * 0.25 / side^2
    assert float(penalty) == pytest.approx(0.75, rel=0.01)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize("penalty", [r1_penalty, zero_centred_penalty, gradient_penalty])
def test_penalties_can_be_learned_from_at_fp16(penalty, norm):
    """A norm's second derivative overflows there for maps as small as they are in the beginning."""
    torch.manual_seed(0)
    judge = initialize(build("discriminator", "patchgan", {"filters": 8, "layers": 2, "norm": norm}))
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    more = () if penalty is r1_penalty else (torch.zeros(2, 3, 32, 32).half(), torch.rand(2, 1, 1, 1))

    def gradients():
        judge.zero_grad()
        penalty(judge, images, *more).backward()
        return [p.grad.clone() for p in judge.parameters() if p.grad is not None]

    with torch.autocast("cpu", torch.float16):
        found = gradients()
    assert found
    for half, whole in zip(found, gradients(), strict=True):
        torch.testing.assert_close(half, whole, rtol=1e-3, atol=1e-6)
