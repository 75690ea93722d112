"""Losses as pure functions of tensors, by name where a recipe chooses."""

from cyclegan.losses.adversarial import ADVERSARIAL, AdversarialLoss, gradient_penalty, r1_penalty

__all__ = ["ADVERSARIAL", "AdversarialLoss", "gradient_penalty", "r1_penalty"]
