"""Whether training at 16 bits stays within what chance does at 32.

The default domain is trained for some steps at fp32 from several seeds, and once at another precision from
the first of them. Each loss is averaged over stretches of steps. The spread is from the least to the greatest
of the fp32 runs; "off" says how far outside of it the other run is, in units of it: 0 is within.
"""

import itertools
import sys
from collections import defaultdict
from typing import Any, Literal

import numpy as np
import torch
import tyro
from loader import batches
from step import conclude

from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import open_domain
from cyclegan.datasets.unpaired import UnpairedImages, open_stores
from cyclegan.training.precision import resolve_precision
from cyclegan.training.step import TrainingStep


def losses(settings: TrainSettings, precision: str, steps: int) -> dict[str, np.ndarray]:
    """Each loss at each step, unweighted."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # else the first run's precision is everyone's
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=resolve_precision(precision))
    torch.manual_seed(settings.seed)
    step = TrainingStep(settings, accelerator)
    data = UnpairedImages(*open_stores(open_domain(settings), settings), settings)
    found = defaultdict(list)
    for batch in itertools.islice(batches(data, settings.batch_size, 0), steps):
        for name, loss in step([batch], 1.0).items():
            found[name].append(float(loss))
    return {name: np.array(values) for name, values in found.items()}


def main(
    steps: int = 200,
    stretch: int = 50,
    seeds: int = 3,
    precision: Literal["bf16", "fp16"] = "bf16",
    size: int = 64,
    batch_size: int = 4,
    blocks: int = 4,
    filters: int = 32,
    json: bool = False,
) -> None:
    """Compare a precision with fp32 over the first steps of training.

    Args:
        steps: of each run
        stretch: steps of which a loss is averaged
        seeds: fp32 runs, two at least
        precision: compared with them
        size: height and width of the images
        batch_size: images of each domain in a step
        blocks: of the generators
        filters: of all networks' first layers
        json: end with one line of JSON
    """
    if seeds < 2:
        sys.exit("--seeds: one run has no spread; take two at least")
    shared: dict[str, Any] = {
        "domain": "noto2twemoji", "size": size, "batch_size": batch_size,
        "generator": {"blocks": blocks, "filters": filters}, "discriminator": {"filters": filters},
    }  # fmt: skip
    runs = [losses(TrainSettings(**shared, seed=seed), "no", steps) for seed in range(seeds)]
    other = losses(TrainSettings(**shared, seed=0), precision, steps)
    rows = []
    print(f"{'loss':>12} {'steps':>9} {'fp32 from':>9} {'to':>9} {precision:>9} {'off':>6}")
    for name, values in other.items():
        for first in range(0, steps, stretch):
            part = slice(first, first + stretch)
            means = [float(run[name][part].mean()) for run in runs]
            least, most, found = min(means), max(means), float(values[part].mean())
            off = max(least - found, found - most, 0.0) / (most - least)
            rows.append(
                {"loss": name, "from_step": first, "fp32": means, precision: found, "off": round(off, 3)}
            )
            steps_said = f"{first}-{min(first + stretch, steps)}"
            print(
                f"{name:>12} {steps_said:>9} {least:>9.4f} {most:>9.4f} {found:>9.4f} {off:>6.2f}", flush=True
            )
    within, farthest = sum(row["off"] == 0 for row in rows), max(row["off"] for row in rows)
    print(f"{within} of {len(rows)} within the spread; the farthest {farthest:g} of it away")
    conclude({"rows": rows}, json)


if __name__ == "__main__":
    tyro.cli(main)
