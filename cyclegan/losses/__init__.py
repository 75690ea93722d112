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
from cyclegan.losses.consistency import consistency_loss
from cyclegan.losses.diff_augment import DRAWS, diff_augment
from cyclegan.losses.edges import counterfeits
from cyclegan.losses.patch_nce import patch_nce, patches_at
from cyclegan.losses.pixels import l1, psnr
from cyclegan.losses.style import content_loss, gram, style_loss, total_variation

__all__ = [
    "ADVERSARIAL",
    "DRAWS",
    "AdversarialLoss",
    "Scores",
    "consistency_loss",
    "content_loss",
    "counterfeits",
    "diff_augment",
    "gradient_penalty",
    "gram",
    "l1",
    "patch_nce",
    "patches_at",
    "psnr",
    "r1_penalty",
    "scales",
    "style_loss",
    "total_variation",
    "zero_centred_penalty",
]
