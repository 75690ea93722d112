"""A generator on images of any size, and what there is to compute it on."""

from collections.abc import Callable
from pathlib import Path

import psutil
import torch
import torch.nn.functional as F
from torch import Tensor


def inference_device() -> torch.device:
    """The fastest device there is."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def memory_bytes(device: torch.device) -> int:
    """All memory of the device; on a CPU, within the limit that a container sets.

    Not what is free just now: the same picture must be cut into the same tiles next time, and by others
    who share the work.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return min([psutil.virtual_memory().total, *_container_limits()])


def _container_limits() -> list[int]:
    """The limits of control groups (v2, then v1), where there are any."""
    found = []
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            found.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return found


@torch.inference_mode()
def translate(network: Callable[[Tensor], Tensor], images: Tensor, multiple_of: int) -> Tensor:
    """Any (N, C, H, W) in [-1, 1] through a network that needs multiples; the result is cropped back."""
    height, width = images.shape[-2:]
    return network(pad(images, multiple_of))[..., :height, :width]


def pad(images: Tensor, multiple: int) -> Tensor:
    """Extend (N, C, H, W) on the right and below as ``padding`` says."""
    bottom, right, mode = padding(*images.shape[-2:], multiple)
    return F.pad(images, (0, right, 0, bottom), mode=mode)


def padding(height: int, width: int, multiple: int) -> tuple[int, int, str]:
    """Rows below and columns on the right that lead to multiples, and to 16 pixels a side at least.

    Mirrored where the image is large enough for that (``reflect``), else its last row and column are
    repeated (``replicate``). Below 16 pixels the reflection inside a network that halves twice has
    nothing to reflect.
    """
    bottom = max(-height % multiple, 16 - height)
    right = max(-width % multiple, 16 - width)
    return bottom, right, "reflect" if bottom < height and right < width else "replicate"
