"""Seconds and images/s of one full training step; prints a table and, with --json, one JSON line.

A step is six generator passes, both discriminators and both optimizers, on images that are in memory.
"""

import resource
import statistics
import time
from json import dumps

import torch
import tyro
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from cyclegan.config import TrainSettings
from cyclegan.training.precision import resolve_precision
from cyclegan.training.step import TrainingStep


def measure(size: int, batch_size: int, blocks: int, filters: int, precision: str, repeats: int) -> dict:
    """Median seconds of a step, after one that is not counted."""
    AcceleratorState._reset_state(True)
    settings = TrainSettings(
        size=size, batch_size=batch_size, generator={"blocks": blocks, "filters": filters}
    )
    accelerator = Accelerator(mixed_precision=precision)
    step = TrainingStep(settings, accelerator)
    real_a, real_b = (torch.rand(batch_size, 3, size, size, device=accelerator.device) * 2 - 1 for _ in "ab")
    batch = {
        "real_a": real_a,
        "real_b": real_b,
        "position": torch.arange(batch_size, device=accelerator.device),
    }
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        step([batch], 1.0)
        if accelerator.device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    median = statistics.median(seconds[1:])
    return {
        "size": size,
        "batch_size": batch_size,
        "blocks": blocks,
        "filters": filters,
        "precision": precision,
        "seconds": round(median, 4),
        "images_per_s": round(batch_size / median, 3),
    }


def main(
    sizes: tuple[int, ...] = (64, 128),
    batch_size: int = 1,
    blocks: int = 9,
    filters: int = 64,
    precisions: tuple[str, ...] = ("no", "auto"),
    repeats: int = 3,
    json: bool = False,
) -> None:
    """Measure a training step at several sizes and precisions.

    Args:
        sizes: heights and widths of the images
        batch_size: images of A in a step
        blocks: residual blocks of the generators
        filters: features after the first layer, generators and discriminators
        precisions: no (fp32), bf16, fp16, or auto
        repeats: steps of which the median is taken
        json: end with one line of JSON
    """
    rows = []
    print(f"{'size':>5} {'batch':>6} {'precision':>10} {'s/step':>8} {'images/s':>9}")
    for size in sizes:
        for precision in dict.fromkeys(resolve_precision(name) for name in precisions):
            row = measure(size, batch_size, blocks, filters, precision, repeats)
            rows.append(row)
            print(f"{size:>5} {batch_size:>6} {precision:>10} {row['seconds']:>8} {row['images_per_s']:>9}")
    machine = {
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    if json:
        print(dumps({"rows": rows, **machine}))


if __name__ == "__main__":
    tyro.cli(main)
