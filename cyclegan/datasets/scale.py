"""The scale that training sees pictures at, before it cuts its squares out of them."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from pydantic import Field
from torch import Tensor

from cyclegan.config import LARGEST_SIZE, Frozen, PresetName, TrainSettings
from cyclegan.errors import BadInput
from cyclegan.images import MAX_PIXELS, read_image, resize, to_tensor

MAX_ENLARGEMENT = 4  # a picture blown up more than this teaches the networks blur
LARGEST = 1024  # pixels a side of what is taken of a picture whose style is wanted


class Scale(Frozen):
    """The part of a preset that is the same every time; sizes in pixels."""

    preset: PresetName
    size: int = Field(ge=1, le=LARGEST_SIZE)
    load_size: int = Field(ge=1, le=LARGEST_SIZE)

    @classmethod
    def of(cls, settings: TrainSettings) -> "Scale":
        return cls(preset=settings.augment.preset, size=settings.size, load_size=settings.load_size)


def fit(scale: Scale) -> Callable[[np.ndarray], np.ndarray]:
    """What is done once when an image is decoded.

    The returned function maps (H, W, C) to the stored image and raises ValueError where the image is
    too small for it, or would become too large.
    """
    preset, size, load_size = scale.preset, scale.size, scale.load_size

    def apply(pixels: np.ndarray) -> np.ndarray:
        height, width = pixels.shape[:2]
        shorter = min(height, width)
        needed = size if preset == "crop" else -(-size // MAX_ENLARGEMENT)
        if shorter < needed:
            raise ValueError(
                f"{width}x{height} pixels are too few; {needed} a side are needed for size {size}"
            )
        target = {
            "resize_and_crop": (load_size, load_size),
            "resize": (size, size),
            "scale_shortside_and_crop": (
                round(height * load_size / shorter),
                round(width * load_size / shorter),
            ),
            "crop": (height, width),
        }[preset]
        if math.prod(target) > MAX_PIXELS:
            raise ValueError(
                f"{width}x{height} pixels would become {target[1]}x{target[0]}, past the limit of "
                f"{MAX_PIXELS:,}; a smaller load size, or a part of the picture, is needed"
            )
        return resize(pixels, *target)

    return apply


def picture_at(
    scale: Scale, path: Path, channels: int, background: tuple[int, int, int], largest: int = LARGEST
) -> Tensor:
    """A picture as large as training sees it, so that strokes are as broad: (1, C, H, W) in [-1, 1].

    Of what is larger than ``largest`` pixels a side the middle is taken.

    Raises:
        BadInput: it cannot be read, has too few pixels for the training size, or would get too many.
    """
    pixels = read_image(path, channels, background).pixels
    try:
        pixels = fit(scale)(pixels)
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from error
    top, left = (max(0, length - largest) // 2 for length in pixels.shape[:2])
    return to_tensor(np.ascontiguousarray(pixels[top : top + largest, left : left + largest]))[None]
