"""Images/s from JPEG files to batches on the device, and how long the trainer waits for them.

Beside our data path runs the pipeline of junyanz/pytorch-CycleGAN-and-pix2pix' defaults, of torchvision's
transforms: each epoch it decodes, resizes bicubically to 286 of 256 px, crops, mirrors, scales. Ours decodes
once, before the first step, so the first epoch is that and the walk; later ones begin with decoded pixels.
All sides take turns; images of A and of B count; numbers are medians. The files are cut from the photographs
in scikit-image.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from entry import at_least, buildable, read_recipe, run
from machine import conclude
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from translate import make_photographs

from cyclegan.allocation import keep_freed_memory
from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import open_domain
from cyclegan.datasets.unpaired import PositionSampler, UnpairedImages, loader, on_device, open_stores
from cyclegan.errors import BadInput
from cyclegan.recipes import validated
from cyclegan.training.precision import resolve_precision, set_up_cuda

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Plain(Dataset):
    """Both sides by number, decoded and transformed each time, as the reference's defaults say."""

    def __init__(self, root: Path, size: int, load_size: int) -> None:
        self.sides = [sorted((root / f"train{side}").iterdir()) for side in "AB"]
        self.transform = transforms.Compose(
            [
                transforms.Resize((load_size, load_size), transforms.InterpolationMode.BICUBIC),
                transforms.RandomCrop(size),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize((0.5,) * 3, (0.5,) * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.sides[0])

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        a, b = (self.transform(Image.open(paths[index]).convert("RGB")) for paths in self.sides)
        return {"A": a, "B": b}


def plain_seconds(data: Plain, batch_size: int, workers: int) -> float:
    """Of one epoch, from the start of the loader; of whole batches, as ours."""
    began = time.perf_counter()
    for batch in DataLoader(data, batch_size, shuffle=True, num_workers=workers, drop_last=True):
        for images in batch.values():
            images.to(DEVICE)
    return time.perf_counter() - began


def our_seconds(settings: TrainSettings, workers: int, later: int) -> tuple[float, float, int]:
    """Of the first epoch, decoding included; of each of ``later`` ones; bytes of decoded images."""
    began = time.perf_counter()
    stores = open_stores(open_domain(settings), settings)
    count = len(stores[0])
    shown = batches(UnpairedImages(*stores, settings), settings.batch_size, workers)
    _show(shown, count, settings.batch_size)
    first = time.perf_counter() - began
    began = time.perf_counter()
    for _ in range(later):
        _show(shown, count, settings.batch_size)
    return first, (time.perf_counter() - began) / later, sum(image.nbytes for s in stores for image in s)


def batches(
    data: UnpairedImages, batch_size: int, workers: int, parts: int = 1
) -> Iterator[dict[str, torch.Tensor]]:
    """As ``Trainer.batches`` makes them, each in so many parts."""
    made = loader(data, PositionSampler(batch_size, 0, 0, 1, parts), workers, DEVICE.type == "cuda")
    return (on_device(batch, DEVICE) for batch in made)


def _show(shown: Iterator[dict[str, torch.Tensor]], count: int, batch_size: int) -> None:
    for _ in range(count // batch_size):
        next(shown)
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def waiting_settings(recipe: Path, root: Path) -> TrainSettings:
    """A recipe on the images of ``root``; without pre-training, which is another step.

    Raises:
        BadInput: the recipe, its networks or its precision cannot be.
    """
    given = read_recipe(recipe)
    data = {name: value for name, value in given.get("data", {}).items() if name not in ("a", "b")}
    values = {**given, "data": {**data, "root": root}, "pretrain": {}}
    if values.get("batch_size") == "auto":
        raise BadInput(f"{recipe}: batch_size must be a number here, not auto")
    settings = buildable(values, recipe)
    resolve_precision(settings.precision)
    return settings


def waiting(recipe: Path, root: Path, steps: int, workers: int | None) -> dict[str, Any]:
    """How long the trainer waits for data while it trains by a recipe, as a share of its steps."""
    from accelerate import Accelerator

    from cyclegan.training.step import TrainingStep

    settings = waiting_settings(recipe, root)
    precision = resolve_precision(settings.precision)
    accelerator = Accelerator(cpu=DEVICE.type == "cpu", mixed_precision=precision)
    set_up_cuda(settings.speed)
    step = TrainingStep(settings, accelerator)
    if workers is None:
        workers = 4 if DEVICE.type == "cuda" else 0  # as a run chooses
    stores = open_stores(open_domain(settings), settings)
    data = UnpairedImages(*stores, settings)
    step.learn_styles({side: store.paths for side, store in data.stores.items()})
    shown = batches(data, settings.batch_size, workers, settings.gradient_accumulation)
    waited, stepped = [], []
    for _ in range(steps + 1):
        began = time.perf_counter()
        parts = [next(shown) for _ in range(settings.gradient_accumulation)]
        got = time.perf_counter()
        step(parts, 1.0)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        waited.append(got - began)
        stepped.append(time.perf_counter() - got)
    wait, work = statistics.median(waited[1:]), statistics.median(stepped[1:])
    return {
        "recipe": str(recipe),
        "precision": precision,
        "workers": workers,
        "wait_ms": round(wait * 1e3, 3),
        "step_ms": round(work * 1e3, 1),
        "waiting_percent": round(100 * wait / (wait + work), 3),
    }


def best_of_each(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each side with the number of loading processes that serves it best, and how many threads decode.

    The reference's transforms have no threads of their own, so that on more than one core it may gain by
    processes.
    """
    best = {
        side: max(row["images_per_s"] for row in rows if row["side"] == side)
        for side in dict.fromkeys(row["side"] for row in rows)
    }
    reference = best["reference's transforms"]
    return {
        "best_reference": reference,
        "first_epoch_to_best": round(best["first epoch"] / reference, 2),
        "later_epochs_to_best": round(best["later epochs"] / reference, 2),
        "decoding_threads": os.cpu_count(),
    }


def main(
    count: int = 200,
    pixels: int = 256,
    size: int = 256,
    batch_size: int = 1,
    workers: tuple[int, ...] = (0, 2),
    repeats: int = 3,
    later: int = 3,
    recipe: Path = Path("experiments/noto2twemoji.yaml"),
    steps: int = 5,
    json: bool = False,
) -> None:
    """Measure the data path.

    Args:
        count: files of each domain; those that fill no batch are left out
        pixels: height and width of the files
        size: of the training images; they are resized to 286/256 of it first
        batch_size: images of each domain in a batch
        workers: loading processes to try, of each side; 0: in the trainer's own
        repeats: runs of which the median is taken
        later: epochs after the first, of which each counts
        recipe: whose step the trainer's waiting is measured with
        steps: of the recipe; 0: do not measure the waiting
        json: end with one line of JSON
    """
    at_least(1, count=count, pixels=pixels, repeats=repeats, later=later)
    at_least(0, steps=steps, workers=workers)
    if batch_size > count:
        raise BadInput(f"--batch-size: {batch_size} is more than the {count} files (--count) of a domain")
    validated(TrainSettings, {"size": size, "batch_size": batch_size}, "--size and --batch-size")
    if steps:
        waiting_settings(recipe, Path("drawn"))
    keep_freed_memory()  # as `cyclegan train` does; both sides have it
    shown = 2 * (count // batch_size) * batch_size
    rows, wait = [], None
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for side in "AB":
            make_photographs(root / f"train{side}", count, pixels)
        settings = TrainSettings(size=size, batch_size=batch_size, data={"root": root})
        plain = Plain(root, size, settings.load_size)
        limit = settings.data.memory_gib
        print(f"{'workers':>7} {'side':>22} {'images/s':>9} {'ratio':>7}")
        for number in workers:
            found: dict[str, list[float]] = {
                "reference's transforms": [],
                "first epoch": [],
                "later epochs": [],
            }
            for _ in range(repeats):
                reference = plain_seconds(plain, batch_size, number)
                first, after, held = our_seconds(settings, number, later)
                for name, seconds in zip(found, (reference, first, after), strict=True):
                    found[name].append(shown / seconds)
            medians = {name: statistics.median(values) for name, values in found.items()}
            for name, speed in medians.items():
                ratio = speed / medians["reference's transforms"]
                rows.append(
                    {
                        "workers": number,
                        "side": name,
                        "images_per_s": round(speed, 1),
                        "ratio_to_reference": round(ratio, 2),
                    }
                )
                print(f"{number:>7} {name:>22} {speed:>9.1f} {ratio:>7.2f}", flush=True)
        best = best_of_each(rows)
        print(", ".join(f"{key} {value}" for key, value in best.items()))
        print(f"decoded images: {held / 2**20:.1f} MiB in memory, of at most {limit:g} GiB (data.memory_gib)")
        if steps:
            wait = waiting(recipe, root, steps, None)
            print(", ".join(f"{key} {value}" for key, value in wait.items()))
    conclude({"rows": rows, "best": best, "decoded_bytes": held, "waiting": wait}, json)


if __name__ == "__main__":
    run(main)
