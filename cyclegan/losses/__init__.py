"""Losses as pure functions of tensors, by name where a recipe chooses."""

from cyclegan.losses.adversarial import (
    ADVERSARIAL,
    AdversarialLoss,
    Scores,
    gradient_penalty,
    r1_penalty,
    scales,
    zero_centred_penalty,
)
from cyclegan.losses.diff_augment import DRAWS, diff_augment
from cyclegan.losses.pixels import l1, psnr

__all__ = [
    "ADVERSARIAL",
    "DRAWS",
    "AdversarialLoss",
    "Scores",
    "diff_augment",
    "gradient_penalty",
    "l1",
    "psnr",
    "r1_penalty",
    "scales",
    "zero_centred_penalty",
]
