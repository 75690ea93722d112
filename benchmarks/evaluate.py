"""Time and peak memory of judging held-out images; prints a table and, with --json, JSON.

What stands for a generator costs next to nothing, so that the judging is what is measured: held-out images,
as many translations, and as many training images of the target, all cut from scikit-image's photographs.
"""

import itertools
import tempfile
import time
from json import dumps
from pathlib import Path

import numpy as np
import torch
from entry import SMALLEST, at_least, run
from machine import peak_mib
from PIL import Image
from torch import Tensor

from cyclegan.evaluation.evaluate import Judge
from cyclegan.evaluation.held_out import HeldOut
from cyclegan.networks.inference import inference_device

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "retina")


def make_photographs(folder: Path, count: int, size: int) -> list[Path]:
    """``count`` JPEG files, size x size, cut from photographs at places that differ."""
    import skimage.data

    folder.mkdir()
    photographs = [np.asarray(getattr(skimage.data, name)()) for name in PHOTOGRAPHS]
    chance = np.random.default_rng(0)
    paths = [folder / f"{number:05}.jpg" for number in range(count)]
    for path, pixels in zip(paths, itertools.cycle(photographs), strict=False):
        side = min(size, *pixels.shape[:2])
        top, left = (int(chance.integers(0, length - side + 1)) for length in pixels.shape[:2])
        Image.fromarray(pixels[top : top + side, left : left + side]).save(path, quality=95)
    return paths


def warmer(images: Tensor) -> Tensor:
    """More red, less blue."""
    return (images + torch.tensor([0.1, 0.0, -0.1]).view(1, 3, 1, 1)).clamp(-1, 1)


def main(
    images: int = 1000,
    size: int = 256,
    paired: bool = False,
    closely: bool = True,
    json: bool = False,
) -> None:
    """Judge translations once, and once more with the references known, as in training.

    Args:
        images: held-out images, and training images of the target
        size: their height and width
        paired: with truth
        closely: with the two distances that compare position by position
        json: end with one line of JSON
    """
    at_least(2, images=images)  # of one there is no spread
    at_least(SMALLEST, size=size)
    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_photographs(folder / "all", 3 * images, size)
        paths = [files[i::3] for i in range(3)]
        judge = Judge(HeldOut(*paths, size, 3, (255, 255, 255), paired), inference_device(), closely=closely)
        for which in ("first", "again"):
            seconds, cpu = time.perf_counter(), time.process_time()
            judge(warmer)
            seconds, cpu = time.perf_counter() - seconds, time.process_time() - cpu
            row = {"judgement": which, "seconds": seconds, "cpu_seconds": cpu, "peak_mib": peak_mib()}
            found.append(row)
    print(f"{images} images of {size} px, {torch.get_num_threads()} threads, {judge.vgg19.device}")
    print(f"{'judgement':<10}{'seconds':>9}{'CPU s':>9}{'peak MiB':>10}")
    for row in found:
        print(
            f"{row['judgement']:<10}{row['seconds']:>9.1f}{row['cpu_seconds']:>9.1f}{row['peak_mib']:>10.0f}"
        )
    if json:
        facts = {"images": images, "size": size, "paired": paired, "closely": closely, "rows": found}
        print(dumps(facts))


if __name__ == "__main__":
    run(main)
