"""How much memory there is, and how much a network takes for each pixel."""

from pathlib import Path

import psutil
import torch
from torch import Tensor, nn

# Convolutions hold their input and output once more, in the layout that they compute in.
WORKING_COPIES = 2


def available_bytes(device: torch.device) -> int:
    """Free memory of the device; on a CPU, within the limit that a container sets."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([psutil.virtual_memory().available, *_container_limits()])


def _container_limits() -> list[int]:
    """What control groups (v2, then v1) leave of their limit, where there is one."""
    found = []
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ):
        try:
            found.append(int(Path(limit).read_text()) - int(Path(used).read_text()))
        except (OSError, ValueError):  # no such group, or "max": no limit
            continue
    return [left for left in found if left > 0]


def bytes_per_pixel(network: nn.Module, channels: int, side: int) -> float:
    """Memory that ``network`` takes for each pixel of an image, found on ``side`` x ``side`` pixels."""
    peak = 0

    def measure(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal peak
        peak = max(peak, sum(x.numel() * x.element_size() for x in (*inputs, output)))

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(measure) for module in leaves]
    weight = next(network.parameters())
    try:
        with torch.inference_mode():
            network(torch.zeros(1, channels, side, side, dtype=weight.dtype, device=weight.device))
    finally:
        for hook in hooks:
            hook.remove()
    return WORKING_COPIES * peak / side**2
