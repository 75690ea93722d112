"""Two folders of pictures go in, a translator between them comes out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclegan.translation import Translator

__version__ = "0.1.0"
__all__ = ["Translator", "__version__"]


def __getattr__(name: str) -> Any:
    # torch is loaded when it is needed, so that `import cyclegan` and `cyclegan --help` stay instant.
    if name == "Translator":
        from cyclegan.translation import Translator

        return Translator
    raise AttributeError(f"module 'cyclegan' has no attribute {name!r}")
