"""Augmentation: crop and mirror by hand, all else with albumentations, which only this file knows."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput, nearest


class Augment:
    """The random part: a function of (seed, side, position) and of nothing else."""

    def __init__(self, settings: TrainSettings) -> None:
        self.seed, self.size = settings.seed, settings.size
        self.flip = settings.augment.flip
        self.transforms = _by_names(settings.augment.transforms) if settings.augment.transforms else None

    def __call__(self, pixels: np.ndarray, side: str, position: int) -> np.ndarray:
        """(H, W, C) stored pixels to (size, size, C): uint8 as it came, deeper images as float in [0, 1]."""
        planes = np.empty((pixels.shape[2], self.size, self.size), pixels.dtype)
        self.crop(pixels, side, position, planes)
        pixels = planes.transpose(1, 2, 0)
        if pixels.dtype == np.uint16:  # albumentations knows uint8 and float32 alone
            pixels = pixels.astype(np.float32) / 65535
        if self.transforms is None:
            return pixels
        pixels = np.ascontiguousarray(pixels)  # out of the store's planes
        self.transforms.set_random_seed(chance.seed_for(self.seed, f"augment {side}", position) % 2**32)
        return self.transforms(image=pixels)["image"]

    def crop(self, pixels: np.ndarray, side: str, position: int, planes: np.ndarray) -> None:
        """Write the crop, mirrored or not, to ``planes`` (C, size, size), as the store has them.

        By hand, for the library takes ten times as long to decide on it.
        """
        height, width = pixels.shape[:2]
        top, left, mirror = chance.below(
            self.seed, f"crop {side}", position, height - self.size + 1, width - self.size + 1, 2
        )
        crop = pixels.transpose(2, 0, 1)[:, top : top + self.size, left : left + self.size]
        if not (mirror and self.flip):
            planes[...] = crop
            return
        for plane, target in zip(crop, planes, strict=True):
            cv2.flip(plane, 1, target)


def _by_names(transforms: Sequence[Mapping[str, Any]]) -> Any:
    """The pipeline of albumentations, which takes seconds to import, so that runs without it do without."""
    # Without this the import asks the network for a newer release.
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    import albumentations as A

    return A.Compose([_by_name(A, i, entry) for i, entry in enumerate(transforms)])


def _by_name(A: Any, number: int, entry: Mapping[str, Any]) -> Any:
    """One albumentations transform from ``{name: ColorJitter, hue: 0.05}``."""
    arguments = dict(entry)
    name = arguments.pop("name", None)
    key = f"augment.transforms.{number}"
    if name is None:
        raise BadInput(f"{key}: needs a name, such as {{name: ColorJitter, hue: 0.05}}")
    transform = getattr(A, str(name), None)
    if not (isinstance(transform, type) and issubclass(transform, A.BasicTransform)):
        known: Sequence[str] = [n for n in dir(A) if n[0].isupper()]
        raise BadInput(f"{key}: albumentations has no {name!r}{nearest(str(name), known)}")
    arguments = {k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()}
    schema = getattr(transform, "InitSchema", None)
    for argument in arguments:
        if schema is not None and argument not in {*schema.model_fields, "p"}:
            raise BadInput(
                f"{key}: {name} has no argument {argument!r}{nearest(argument, schema.model_fields)}"
            )
    try:
        return transform(**arguments)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{key}: {name}: {' '.join(str(error).split())}") from error
