"""Differentiable augmentation of what discriminators see, for small data (Zhao et al. 2020, §3.2).

Reals and fakes go through the same kinds of change, and the generator's gradient through them: the
discriminators cannot learn the few reals by heart, and the changes do not leak into the fakes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

DRAWS = 7  # random numbers for one image: three of colour, two of translation, two of cutout


def diff_augment(images: Tensor, draws: Sequence[Sequence[float]], policy: Sequence[str]) -> Tensor:
    """Change each image in its own way.

    Args:
        images: (N, C, H, W) in [-1, 1]; what comes out may leave that range.
        draws: for each image ``DRAWS`` numbers from [0, 1).
        policy: of ``color``, ``translation`` and ``cutout``, what is to be done, in this order.
    """
    uniform = torch.tensor(draws, dtype=images.dtype, device=images.device).view(-1, DRAWS, 1, 1)
    for name in policy:
        if name == "color":
            images = _color(images, *uniform[:, :3].split(1, dim=1))
        elif name == "translation":
            images = _translation(images, [row[3:5] for row in draws])
        else:
            images = _cutout(images, [row[5:7] for row in draws])
    return images


def _color(images: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Brightness shifted by up to 0.5, saturation times 0 to 2, contrast times 0.5 to 1.5."""
    images = images + brightness - 0.5
    grey = images.mean(dim=1, keepdim=True)
    images = grey + (images - grey) * 2 * saturation
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def _translation(images: Tensor, draws: Sequence[Sequence[float]]) -> Tensor:
    """Moved by up to an eighth of each side, zeros where nothing was."""
    height, width = images.shape[2:]
    most = [int(side / 8 + 0.5) for side in (height, width)]
    padded = F.pad(images, (most[1], most[1], most[0], most[0]))
    moved = []
    for image, row in zip(padded, draws, strict=True):
        top, left = (int(draw * (2 * reach + 1)) for draw, reach in zip(row, most, strict=True))
        moved.append(image[:, top : top + height, left : left + width])
    return torch.stack(moved)


def _cutout(images: Tensor, draws: Sequence[Sequence[float]]) -> Tensor:
    """A rectangle of half the height and width made 0; it may reach over the border."""
    mask = torch.ones_like(images[:, :1])
    for place, row in zip(mask, draws, strict=True):
        bounds = []
        for draw, side in zip(row, images.shape[2:], strict=True):
            first = int(draw * (side + 1)) - side // 4
            bounds.append(slice(max(0, first), max(0, first + side // 2)))
        place[:, bounds[0], bounds[1]] = 0
    return images * mask
