"""Tiles against the whole image: memory, time, difference, seams. `python benchmarks/tiling.py 1024 2048`.

Each row is measured in a process of its own, for its peak memory, and kept with its picture in --work, so
that a table that was interrupted goes on. The images are one photograph, mirrored to size. The time is that
of the processor, user and system, over all threads: it depends little on what else the machine does.
"""

import hashlib
import json as to_json
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from entry import SMALLEST, run
from machine import peak_mib
from rich.console import Console
from rich.table import Table

from cyclegan.artifacts import read_config
from cyclegan.errors import BadInput, Failed

Way = Literal["whole", "exact", "dense", "thumbnail", "naive"]
WAYS: tuple[Way, ...] = ("whole", "exact", "dense", "thumbnail", "naive")
TILE = 512
COLUMNS = ("pixels", "way", "MiB", "CPU s", "largest", "mean", "step across", "step down")


def main(
    sizes: Annotated[tuple[int, ...], tyro.conf.Positional] = (1024, 2048),
    ways: tuple[Way, ...] = WAYS,
    generator: Path | None = None,
    work: Path = Path("runs/tiling"),
    again: bool = False,
    show: bool = False,
    json: bool = False,
    child: bool = False,
) -> None:
    """Measure ways of translating large images.

    Args:
        sizes: heights and widths of the images
        ways: what is measured, in this order
        generator: folder of a saved generator; default random weights
        work: where rows and pictures are kept
        again: measure anew what is kept
        show: print what is kept, and measure nothing
        json: end with one line of JSON
        child: measure the first of them in this process
    """
    if not sizes or min(sizes) < SMALLEST:
        raise BadInput(f"sizes: give one or more, of {SMALLEST} pixels or more")
    if not ways:
        raise BadInput(f"--ways: name one or more of {', '.join(WAYS)}")
    if child:
        _one(ways[0], sizes[0], work, generator)
        return
    name = "random"
    if generator is not None:
        read_config(generator)
        name = hashlib.sha256((generator / "model.safetensors").read_bytes()).hexdigest()[:12]
    work = work / name
    work.mkdir(parents=True, exist_ok=True)
    for size in sizes:
        for way in ways:
            if not show and (again or not _kept(work, way, size)):
                _measure(way, size, work, generator)
    rows = [row for size in sizes for way in ways if (row := _row(way, size, work))]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)
    if json:
        print(to_json.dumps(rows))


def _kept(work: Path, way: str, size: int) -> dict[str, float] | None:
    """What a finished measurement said; its line is written after its picture."""
    path = work / f"{size}-{way}.json"
    return to_json.loads(path.read_text()) if path.exists() else None


def _measure(way: str, size: int, work: Path, generator: Path | None) -> None:
    command = [sys.executable, __file__, str(size), "--ways", way, "--child", "--work", str(work)]
    done = subprocess.run([*command, *(["--generator", str(generator)] if generator else [])])
    if done.returncode:
        raise Failed(f"{way} at {size} pixels: status {done.returncode}")


def _row(way: str, size: int, work: Path) -> dict[str, object] | None:
    """One line of the table: compared with the whole image, or with exact where there is no whole one."""
    said = _kept(work, way, size)
    if said is None:
        return None
    made = np.load(work / f"{size}-{way}.npy", mmap_mode="r")
    reference = next((name for name in ("whole", "exact") if _kept(work, name, size)), None)
    largest = mean = None
    if reference is not None:
        largest, mean = _apart(made, np.load(work / f"{size}-{reference}.npy", mmap_mode="r"))
    row = (size, way, round(said["MiB"]), round(said["cpu_s"]), largest, mean, *_seams(made))
    return dict(zip(COLUMNS, row, strict=True))


def _apart(made: np.ndarray, whole: np.ndarray) -> tuple[int, float]:
    """The largest and the mean difference, in levels of 255."""
    largest, total = 0, 0.0
    for top in range(0, len(made), 256):
        apart = np.abs(made[top : top + 256].astype(np.int16) - whole[top : top + 256])
        largest, total = max(largest, int(apart.max())), total + float(apart.sum())
    return largest, round(total / made.size, 2)


def _seams(pixels: np.ndarray) -> tuple[float | None, float | None]:
    """The mean step across the borders of tiles, in units of the step elsewhere: to the right, and down."""
    return _seam(pixels), _seam(pixels.transpose(1, 0, 2))


def _seam(pixels: np.ndarray) -> float | None:
    """Over the columns where tiles meet; None where there is one row of tiles alone."""
    if pixels.shape[1] <= TILE:
        return None
    total = np.zeros(pixels.shape[1] - 1)
    for top in range(0, len(pixels), 256):
        total += np.abs(np.diff(pixels[top : top + 256].astype(np.int16), axis=1)).mean(axis=2).sum(axis=0)
    across = np.zeros(len(total), bool)
    across[TILE - 1 :: TILE] = True
    return round(float(total[across].mean() / total[~across].mean()), 2)


def _photograph(size: int) -> np.ndarray:
    from skimage import data

    photo = data.astronaut()
    # Mirrored again and again, from a place where no mirror line falls on a border of tiles.
    rows, columns = (np.arange(offset, offset + size) % 1024 for offset in (97, 171))
    rows, columns = np.minimum(rows, 1023 - rows), np.minimum(columns, 1023 - columns)
    picture = photo[rows[:, None], columns[None, :]]
    # Lighter to the right and darker below, so that no tile is like another.
    for top in range(0, size, 256):
        part = picture[top : top + 256]
        y, x = np.ogrid[top : top + len(part), :size]
        part[:] = np.clip(part * (0.6 + 0.6 * x / size - 0.3 * y / size)[:, :, None], 0, 255)
    return picture


def _one(way: str, size: int, work: Path, generator: Path | None) -> None:
    import torch

    from cyclegan.artifacts import load_generator
    from cyclegan.images import from_tensor, resize, to_tensor
    from cyclegan.networks import build
    from cyclegan.networks.inference import translate
    from cyclegan.networks.layers import initialize
    from cyclegan.translation.options import Tiling
    from cyclegan.translation.tiling.source import ArraySource, assembled
    from cyclegan.translation.tiling.statistics import with_statistics_of
    from cyclegan.translation.tiling.strategy import Tiler
    from cyclegan.translation.tiling.tiles import dense_bands

    torch.manual_seed(0)  # each way is a process of its own, and all have the same weights
    network = (
        load_generator(generator)[0] if generator else initialize(build("generator", "resnet", {})).eval()
    ).requires_grad_(False)
    pixels = _photograph(size)
    began = time.process_time()
    if way == "whole":
        made = from_tensor(translate(network, to_tensor(pixels)[None], 4)[0])
    else:
        if way == "thumbnail":
            thumbnail = to_tensor(resize(pixels, 1024, 1024))[None]
            bands = dense_bands(
                with_statistics_of(network, [thumbnail]), ArraySource(pixels), TILE, 4, sample_pixels=0
            )
        else:
            bands = Tiler(network, 3, 4, Tiling(TILE, way)).bands(ArraySource(pixels))
        made = assembled(bands, pixels)
    said = {"MiB": peak_mib(), "cpu_s": time.process_time() - began}
    np.save(work / f"{size}-{way}.npy", made)
    (work / f"{size}-{way}.json").write_text(to_json.dumps(said))


if __name__ == "__main__":
    run(main)
