"""Translate with a saved generator; needs nothing of training."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclegan.translation.translator import Translator

__all__ = ["Translator"]


def __getattr__(name: str) -> Any:
    # Looking at a file's label needs no torch.
    if name == "Translator":
        from cyclegan.translation.translator import Translator

        return Translator
    raise AttributeError(f"module 'cyclegan.translation' has no attribute {name!r}")
