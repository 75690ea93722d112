"""Colour and light apart: the content's colours can be kept (Gatys et al. 2017, §5.2, luminance only).

Images are (N, 3, H, W) in [-1, 1]; luminance is BT.601's, as in the rest of the package.
"""

import torch
from torch import Tensor

_LUMA = (0.299, 0.587, 0.114)


def luminance(images: Tensor) -> Tensor:
    """(N, 3, H, W) to (N, 1, H, W)."""
    return (images * images.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)


def grey(images: Tensor) -> Tensor:
    """The luminance, three times."""
    return luminance(images).expand(-1, 3, -1, -1).contiguous()


def with_colours_of(result: Tensor, content: Tensor) -> Tensor:
    """The luminance of ``result`` with the colour differences of ``content``.

    Both are added where the sum is a colour that there is; elsewhere the colour difference is made as
    much smaller as it takes, so that the luminance is always that of ``result``.
    """
    light = luminance(result).clamp(-1, 1)
    difference = content - luminance(content)
    # What room there is above and below for the channel that needs most.
    above = difference.amax(dim=1, keepdim=True).clamp(min=1e-6)
    below = (-difference.amin(dim=1, keepdim=True)).clamp(min=1e-6)
    room = torch.minimum((1 - light) / above, (1 + light) / below).clamp(0, 1)
    return light + room * difference


def match_luminance(
    style: Tensor, content: Tensor, part: Tensor | None = None, where: Tensor | None = None
) -> Tensor:
    """A grey style picture with the mean and the spread of the content's luminance (§5.2, eq. 4).

    Args:
        part, where: masks (1, 1, H, W) in [0, 1] of what counts of the style and of the content.
    """
    own = luminance(style)
    (mean, spread), (wanted, wanted_spread) = _moments(own, part), _moments(luminance(content), where)
    return ((own - mean) * (wanted_spread / spread) + wanted).expand(-1, 3, -1, -1).contiguous()


def _moments(light: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of where the mask is white."""
    weight = torch.ones_like(light) if mask is None else mask
    share = weight / weight.sum().clamp(min=1e-6)
    mean = (share * light).sum()
    return mean, (share * (light - mean).square()).sum().sqrt().clamp(min=1e-4)
