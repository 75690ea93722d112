"""How much a training step multiplies, and how much the machine could in that time."""

import time
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook


class Operations:
    """Counts multiplications and additions, two for each pair, of convolutions and linear layers.

    As the plain layers have them, on both sides alike; what ours saves shows in the seconds. A layer's way
    back is counted where it goes forth; where it goes forth once more within a backward pass
    (``speed.recompute``), that is one pass more and no second way back. What compiled networks do is not
    seen: count while they run as they are written.
    """

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> "Operations":
        self.handle = register_module_forward_hook(self._add)
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _add(self, module: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> None:
        if not isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            return
        x, weight = inputs[0], module.weight
        # Each number of the output (of a transposed convolution: of the input) meets this many weights.
        met = weight.numel() // weight.shape[0]
        forward = 2 * met * (x if isinstance(module, nn.ConvTranspose2d) else output).numel()
        self.count += forward
        in_backward = torch._C._current_graph_task_id() != -1  # torch has no public name for it
        if torch.is_grad_enabled() and not in_backward:
            self.count += forward * (int(weight.requires_grad) + int(x.requires_grad))


def peak_flops(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of a matrix product, the best of several."""
    n = 8192 if device.type == "cuda" else 1024 + 512
    a, b = (torch.rand(n, n, device=device, dtype=dtype) for _ in "ab")
    seconds = []
    for _ in range(6):
        began = time.perf_counter()
        a @ b
        synchronize(device)
        seconds.append(time.perf_counter() - began)
    return 2 * n**3 / min(seconds)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
