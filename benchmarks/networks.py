"""Parameters of every network, what one image through it costs, and a training step with it.

python benchmarks/networks.py --size 128 --repeats 3 --json
"""

import statistics
import time
from json import dumps
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from entry import at_least, buildable, run
from torch.utils.flop_counter import FlopCounterMode

from cyclegan.config import TrainSettings
from cyclegan.training.precision import resolve_precision
from cyclegan.training.step import TrainingStep

GENERATORS = {
    "resnet (9 blocks)": {"name": "resnet"},
    "resnet, attention at 1/4": {"name": "resnet", "attention": 4},
    "unet": {"name": "unet"},
    "vit_unet": {"name": "vit_unet"},
    "modnet": {"name": "modnet"},
    "modnet, reference": {"name": "modnet", "style": "reference"},
}
DISCRIMINATORS = {
    "patchgan": {"name": "patchgan"},
    "patchgan, spectral norm": {"name": "patchgan", "spectral_norm": True},
    "patchgan, attention at 1/8": {"name": "patchgan", "attention": 8},
    "pixel": {"name": "pixel"},
    "multiscale": {"name": "multiscale"},
    "batch_statistics": {"name": "batch_statistics"},
    "projected": {"name": "projected"},
}


def settings_with(kind: str, chosen: dict[str, Any], size: int) -> TrainSettings:
    """Of a step with the paper's other networks.

    Raises:
        BadInput: the network cannot be of that size.
    """
    if "attention" in chosen:  # recipes name it by the side of its feature map
        chosen = {**chosen, "attention": max(1, size // chosen["attention"])}
    return buildable({"size": size, kind: chosen}, f"--size {size}")


def measure(kind: str, settings: TrainSettings, precision: str, repeats: int) -> dict[str, float]:
    """Parameters, and median seconds of a pass and of a whole step with the paper's other networks."""
    AcceleratorState._reset_state(True)
    accelerator, size = Accelerator(mixed_precision=precision), settings.size
    step = TrainingStep(settings, accelerator)
    network = step.networks["G_AB" if kind == "generator" else "D_A"]
    images = torch.rand(1, 3, size, size, device=accelerator.device) * 2 - 1
    batch = {"real_a": images, "real_b": -images, "position": torch.zeros(1, dtype=torch.long)}
    with torch.no_grad(), accelerator.autocast():
        one = _seconds(lambda: network(images), repeats)
    return {
        "parameters": sum(p.numel() for p in network.parameters()),
        "gmacs": round(multiply_adds(network, images) / 1e9, 1),
        "seconds_pass": round(one, 4),
        "seconds_step": round(_seconds(lambda: step([batch], 1.0), repeats), 3),
    }


def multiply_adds(network: torch.nn.Module, images: torch.Tensor) -> float:
    """Of one pass, in convolutions, matrix products and attention."""
    network.requires_grad_(False)  # the counter's hooks want no gradient, or one everywhere
    with FlopCounterMode(display=False) as counter:
        network(images)
    network.requires_grad_(True)
    return counter.get_total_flops() / 2


def _seconds(work, repeats: int) -> float:
    found = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        found.append(time.perf_counter() - began)
    return statistics.median(found[1:])


def main(
    size: int = 128,
    precision: Literal["no", "bf16", "fp16", "auto"] = "no",
    repeats: int = 3,
    json: bool = False,
) -> None:
    """Measure every network.

    Args:
        size: height and width of the one image
        precision: no (fp32), bf16, fp16, or auto
        repeats: passes and steps of which the median is taken, after one of each that is not counted
        json: end with one line of JSON
    """
    at_least(1, repeats=repeats)
    kinds = {"generator": GENERATORS, "discriminator": DISCRIMINATORS}
    measured = [
        (kind, name, settings_with(kind, chosen, size))
        for kind, networks in kinds.items()
        for name, chosen in networks.items()
    ]
    precision, rows = resolve_precision(precision), {}
    for kind, name, settings in measured:
        rows[name] = measure(kind, settings, precision, repeats)
        figures = "  ".join(f"{key} {value:>12,}" for key, value in rows[name].items())
        print(f"{kind:14} {name:28} {figures}", flush=True)
    if json:
        print(dumps({"size": size, "precision": precision, "threads": torch.get_num_threads(), "rows": rows}))


if __name__ == "__main__":
    run(main)
