"""How a folder is to be translated, and images that are large."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cyclegan.errors import BadInput

if TYPE_CHECKING:
    from cyclegan.translation.signing import Signer

Format = Literal["jpg", "png", "webp", "tiff"]

NEEDS_TORCH = (
    "may take more memory than there is, and an .onnx file has no tiles; give the generator's folder in "
    "its place, a smaller --size, or --tile off to have it tried whole"
)

Method = Literal["exact", "dense", "naive"]


@dataclass(frozen=True)
class Tiling:
    """How images that are large are translated.

    Args:
        tile: side of the tiles in pixels; ``auto``: images that the memory holds are translated at once,
            unless ``method`` is given; ``off``: all images are.
        method: ``dense``, ``exact`` or ``naive``; default dense where the network allows it, else exact.

    Raises:
        BadInput: a tile smaller than 16 pixels.
    """

    tile: int | Literal["auto", "off"] = "auto"
    method: Method | None = None

    def __post_init__(self) -> None:
        if isinstance(self.tile, int) and self.tile < 16:
            raise BadInput(f"tile: must be 16 or more, not {self.tile}")

    def __str__(self) -> str:
        """For the record."""
        return f"{self.method or 'auto'}, tile {self.tile}"


@dataclass(frozen=True)
class FolderOptions:
    """The choices of one call.

    Args:
        size: translate at ``size`` x ``size`` and resize back; default at each image's own size.
        format: of the outputs; default that of each input.
        quality: of JPEG and WebP, 1 to 100.
        batch_size: images of one shape that go through the network at once; fewer where they are large.
            Default 1 on CPUs, 16 on GPUs.
        overwrite: replace what lies at the outputs' places, whoever made it.
        label: say in each file what made it.
        signer: sign that, too.

    Raises:
        BadInput: a value out of its range.
    """

    size: int | None = None
    format: Format | None = None
    quality: int = 95
    batch_size: int | None = None
    overwrite: bool = False
    label: bool = True
    signer: "Signer | None" = None

    def __post_init__(self) -> None:
        if self.size is not None and self.size < 16:
            raise BadInput(f"size: must be 16 or more, not {self.size}")
        if not 1 <= self.quality <= 100:
            raise BadInput(f"quality: must be 1 to 100, not {self.quality}")
        if self.batch_size is not None and self.batch_size < 1:
            raise BadInput(f"batch_size: must be 1 or more, not {self.batch_size}")
        if self.signer is not None and not self.label:
            raise BadInput("label: a signature says what the label says; leave one of the two out")
