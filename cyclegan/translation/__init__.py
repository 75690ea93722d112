"""Translate with a saved generator; needs nothing of training."""

from cyclegan.translation.translator import Translator

__all__ = ["Translator"]
