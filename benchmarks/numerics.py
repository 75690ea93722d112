"""Whether training at 16 bits stays within what chance does at 32.

The default domain is trained for some steps at fp32 from several seeds, and once at another precision from
the first of them. Each loss is averaged over stretches of steps. The spread is from the least to the greatest
of the fp32 runs; "off" says how far outside of it the other run is, in units of it: 0 is within. Chance takes
runs out of it, too: as a control stands the same of one more fp32 run, from a further seed.
"""

import itertools
from collections import defaultdict
from typing import Any, Literal

import numpy as np
import torch
from entry import at_least, buildable, run
from loader import batches
from machine import conclude

from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import open_domain
from cyclegan.datasets.unpaired import UnpairedImages, open_stores
from cyclegan.training.precision import resolve_precision, set_up_cuda
from cyclegan.training.step import TrainingStep

WIDTHS = (14, 9, 9, 9, 9, 6, 9, 6)  # of the table's columns


def losses(settings: TrainSettings, precision: str, steps: int) -> dict[str, np.ndarray]:
    """Each loss at each step, unweighted."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # else the first run's precision is everyone's
    accelerator = Accelerator(cpu=not torch.cuda.is_available(), mixed_precision=resolve_precision(precision))
    torch.manual_seed(settings.seed)
    set_up_cuda(settings.speed)
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
    at_least(1, steps=steps, stretch=stretch)
    at_least(2, seeds=seeds)  # one run has no spread
    shared: dict[str, Any] = {
        "domain": "noto2twemoji", "size": size, "batch_size": batch_size,
        "generator": {"blocks": blocks, "filters": filters}, "discriminator": {"filters": filters},
    }  # fmt: skip
    buildable(shared, "--size, --batch-size, --blocks, --filters")
    resolve_precision(precision)
    runs = [losses(TrainSettings(**shared, seed=seed), "no", steps) for seed in range(seeds)]
    other = losses(TrainSettings(**shared, seed=0), precision, steps)
    control = losses(TrainSettings(**shared, seed=seeds), "no", steps)
    rows = []
    heads = zip(("loss", "steps", "fp32 from", "to", precision, "off", "control", "off"), WIDTHS, strict=True)
    print(" ".join(f"{head:>{width}}" for head, width in heads))
    for name in other:
        for first in range(0, steps, stretch):
            part = slice(first, first + stretch)
            *means, found, more = (float(run[name][part].mean()) for run in (*runs, other, control))
            least, most = min(means), max(means)
            off, chance = (
                round(max(least - mean, mean - most, 0.0) / (most - least), 3) for mean in (found, more)
            )
            rows.append(
                {"loss": name, "from_step": first, "fp32": means, precision: found, "off": off,
                 "control": more, "control_off": chance}
            )  # fmt: skip
            figures = (name, f"{first}-{min(first + stretch, steps)}", least, most, found, off, more, chance)
            cells = (f"{f:.3f}" if isinstance(f, float) else f for f in figures)
            print(" ".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)), flush=True)
    for who, key in ((precision, "off"), ("one more fp32 run", "control_off")):
        within, farthest = sum(row[key] == 0 for row in rows), max(row[key] for row in rows)
        print(f"{who}: {within} of {len(rows)} within the spread; the farthest {farthest:g} of it away")
    conclude({"rows": rows}, json)


if __name__ == "__main__":
    run(main)
