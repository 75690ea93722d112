"""A generator on images of any size."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def inference_device() -> torch.device:
    """The fastest device there is."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


@torch.inference_mode()
def translate(network: Callable[[Tensor], Tensor], images: Tensor, multiple_of: int) -> Tensor:
    """Any (N, C, H, W) in [-1, 1] through a network that needs multiples; the result is cropped back."""
    height, width = images.shape[-2:]
    return network(pad(images, multiple_of))[..., :height, :width]


def pad(images: Tensor, multiple: int) -> Tensor:
    """Extend (N, C, H, W) on the right and below to multiples, and to 4 multiples a side at least.

    Mirrored where the image is large enough for that, else its last row and column are repeated. Below
    4 multiples the reflection inside the networks has nothing to reflect.
    """
    height, width = images.shape[-2:]
    bottom = max(-height % multiple, 4 * multiple - height)
    right = max(-width % multiple, 4 * multiple - width)
    mirrored = bottom < height and right < width
    return F.pad(images, (0, right, 0, bottom), mode="reflect" if mirrored else "replicate")
