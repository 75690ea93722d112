"""What saving costs a run: how long the training thread stands still, and the step time with and without.

Steps are timed in blocks, one without a save and one that begins with a save, turn by turn, so that what else
the machine does falls on both. A checkpoint each 1000 steps is the default; the share of that is printed.
"""

import shutil
import statistics
import tempfile
import time
from json import dumps
from pathlib import Path

import numpy as np
import torch
from entry import at_least, buildable, run
from PIL import Image

from cyclegan.training.loop import Trainer


def draw_pictures(folder: Path, size: int) -> None:
    draw = np.random.default_rng(0)
    for split in ("trainA", "trainB", "testA", "testB"):
        (folder / split).mkdir(parents=True)
        for i in range(8):
            pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{i}.png")


def seconds_of(trainer: Trainer, batches, steps: int) -> float:
    began = time.perf_counter()
    for _ in range(steps):
        trainer.meter.add(trainer.step([next(batches)], 1.0))
    if trainer.accelerator.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def main(
    size: int = 128,
    filters: int = 64,
    blocks: int = 9,
    steps: int = 10,
    repeats: int = 3,
    every: int = 1000,
    json: bool = False,
) -> None:
    """Measure what a checkpoint costs.

    Args:
        size: height and width of the images
        filters: features after the first layer, generators and discriminators
        blocks: residual blocks of the generators
        steps: in a block
        repeats: blocks of each kind
        every: steps between two checkpoints, for the share
        json: end with one line of JSON
    """
    at_least(1, steps=steps, repeats=repeats, every=every)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        values = {
            "steps": 10**6,
            "size": size,
            "tracker": "none",
            "run_dir": folder / "run",
            "data": {"root": folder / "pictures"},
            "generator": {"filters": filters, "blocks": blocks},
            "discriminator": {"filters": filters},
            "samples": {"count": 1},
        }
        settings = buildable(values, "--size, --filters, --blocks")
        draw_pictures(folder / "pictures", size)
        trainer = Trainer(settings)
        batches = trainer.batches()
        seconds_of(trainer, batches, 2)
        plain, saved, still, written = [], [], [], []
        for _ in range(repeats):
            plain.append(seconds_of(trainer, batches, steps))
            before, began = trainer.saver.seconds, time.perf_counter()
            trainer._save()
            still.append(trainer.saver.seconds - before)
            saved.append(still[-1] + seconds_of(trainer, batches, steps))
            trainer.saver.wait()
            written.append(time.perf_counter() - began)
            trainer.progress.step += 1
        size_mib = sum(file.stat().st_size for file in trainer.run.checkpoints.rglob("state.pt"))
        count = len(list(trainer.run.checkpoints.rglob("state.pt")))
        shutil.rmtree(trainer.run.folder)
    step = statistics.median(plain) / steps
    extra = statistics.median(saved) - statistics.median(plain)
    report = {
        "size": size,
        "checkpoint_mib": round(size_mib / count / 2**20, 1),
        "seconds_a_step": round(step, 4),
        "stands_still_s": round(statistics.median(still), 4),
        "slower_by_s": round(extra, 4),
        "on_the_disk_after_s": round(statistics.median(written), 2),
        "share_of_step_time_percent": round(100 * max(0.0, extra) / (every * step), 3),
        "every": every,
        "device": trainer.accelerator.device.type,
    }
    for key, value in report.items():
        print(f"{key.replace('_', ' '):>27}  {value}")
    if json:
        print(dumps(report))


if __name__ == "__main__":
    run(main)
