"""Style pictures as they were named: with weights, and with masks for where each goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.images import read_image, resize, to_tensor
from cyclegan.stylization.options import SMALLEST

FAINTEST = 0.1  # of white, that a mask has somewhere at the size of its picture: less changes nothing to see


@dataclass(frozen=True)
class Style:
    """A picture whose look is wanted.

    Args:
        image: (3, H, W) in [-1, 1].
        weight: its share; those of all styles sum to 1.
        where: (h, w) in [0, 1], where in the content it goes; None: everywhere.
        part: (h, w) in [0, 1], which part of the style picture counts; None: all of it.
        record: digests of its files, for the label.
    """

    image: Tensor
    weight: float = 1.0
    where: Tensor | None = None
    part: Tensor | None = None
    record: dict[str, Any] | None = None


def read_styles(
    pictures: Sequence[Path],
    weights: Sequence[float] = (),
    masks: Sequence[Path] = (),
    style_masks: Sequence[Path] = (),
) -> tuple[Style, ...]:
    """Read style pictures and what belongs to them.

    Args:
        weights: one for each picture; default equal.
        masks: one for each picture, white where in the content it goes.
        style_masks: one for each picture, white where in the picture its look is to be taken from.

    Raises:
        BadInput: a picture cannot be read, the counts differ, or a weight or a mask is nothing.
    """
    for option, given in (("--weights", weights), ("--masks", masks), ("--style-masks", style_masks)):
        if given and len(given) != len(pictures):
            raise BadInput(f"{option}: {len(given)} given for {len(pictures)} style pictures; one for each")
    shares = _shares(weights or [1.0] * len(pictures))
    return tuple(
        _style(
            path,
            shares[i],
            masks[i] if masks else None,
            style_masks[i] if style_masks else None,
        )
        for i, path in enumerate(pictures)
    )


def _shares(weights: Sequence[float]) -> list[float]:
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise BadInput(f"--weights: must be more than 0 and less than infinite, not {weight:g}")
    total = sum(weights)
    if total == float("inf"):
        raise BadInput(
            f"--weights: their sum is past all numbers, with {max(weights):g} among them; only their ratio "
            "counts, so take smaller ones"
        )
    return [weight / total for weight in weights]


def _style(path: Path, weight: float, mask: Path | None, style_mask: Path | None) -> Style:
    image = to_tensor(read_image(path).pixels)
    if min(image.shape[1:]) < SMALLEST:
        raise BadInput(f"{path}: has fewer than {SMALLEST} pixels a side; too small to be a style")
    record = {"sha256": sha256_of(path), "weight": round(weight, 6)}
    record |= {} if mask is None else {"mask_sha256": sha256_of(mask)}
    record |= {} if style_mask is None else {"style_mask_sha256": sha256_of(style_mask)}
    return Style(
        image,
        weight,
        None if mask is None else _read_mask(mask),
        None if style_mask is None else _read_mask(style_mask),
        record,
    )


def _read_mask(path: Path) -> Tensor:
    # What is transparent is not painted on.
    mask = (to_tensor(read_image(path, channels=1, background=(0, 0, 0)).pixels)[0] + 1) / 2
    if mask.max() < 0.5:
        raise BadInput(f"{path}: is black all over; a mask is white where its style is to be")
    return mask


def refuse_none(styles: Sequence[Style]) -> None:
    """Raise BadInput where no style counts."""
    if not any(style.weight > 0 for style in styles):
        raise BadInput("styles: none is given with a weight of more than 0; give one at least (read_styles)")


def refuse_black(name: str, mask: Tensor | None, height: int, width: int) -> None:
    """Raise BadInput for a mask whose white is lost at the size where it is used."""
    if mask is not None and resized(mask[None, None], height, width).max() < FAINTEST:
        raise BadInput(
            f"{name} is black all over at {width}x{height} pixels, where it is used; make its white larger"
        )


def resized(images: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) at another size, as files are resized: averages when it shrinks, bicubic when it grows."""
    if images.shape[2:] == (height, width):
        return images
    arrays = [resize(image.permute(1, 2, 0).cpu().contiguous().numpy(), height, width) for image in images]
    made = torch.stack([torch.from_numpy(array).permute(2, 0, 1) for array in arrays])
    return made.contiguous().to(images)


def scaled_shape(style: Style, pixels: float) -> tuple[int, int]:
    """Height and width of a style picture with about ``pixels`` pixels, but not enlarged."""
    height, width = style.image.shape[1:]
    share = min(1.0, (pixels / (height * width)) ** 0.5)
    return max(SMALLEST, round(height * share)), max(SMALLEST, round(width * share))


def at_scale(style: Style, pixels: float) -> Tensor:
    """The style picture, (1, 3, h, w), at ``scaled_shape``."""
    return resized(style.image[None], *scaled_shape(style, pixels)).clamp(-1, 1)
