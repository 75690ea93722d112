"""Parameters of every network, what one image through it costs, and a training step with it.

python benchmarks/networks.py --size 128 --repeats 3 --json
"""

import statistics
import time
from json import dumps

import torch
import tyro
from accelerate import Accelerator
from accelerate.state import AcceleratorState
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


def measure(kind: str, chosen: dict, size: int, precision: str, repeats: int) -> dict[str, float]:
    """Parameters, and median seconds of a pass and of a whole step with the paper's other networks."""
    AcceleratorState._reset_state(True)
    if "attention" in chosen:  # recipes name it by the side of its feature map
        chosen = {**chosen, "attention": size // chosen["attention"]}
    accelerator = Accelerator(mixed_precision=precision)
    step = TrainingStep(TrainSettings(size=size, **{kind: chosen}), accelerator)
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


def main(size: int = 128, precision: str = "no", repeats: int = 3, json: bool = False) -> None:
    """Measure every network on one image of ``size`` pixels."""
    precision, rows = resolve_precision(precision), {}
    for kind, networks in (("generator", GENERATORS), ("discriminator", DISCRIMINATORS)):
        for name, chosen in networks.items():
            rows[name] = measure(kind, chosen, size, precision, repeats)
            figures = "  ".join(f"{key} {value:>12,}" for key, value in rows[name].items())
            print(f"{kind:14} {name:28} {figures}", flush=True)
    if json:
        print(dumps({"size": size, "precision": precision, "threads": torch.get_num_threads(), "rows": rows}))


if __name__ == "__main__":
    tyro.cli(main)
