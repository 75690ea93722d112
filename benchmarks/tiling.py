"""Tiles against the whole image: memory, time, difference, seams. `python benchmarks/tiling.py 1024 2048`.

Each row is measured in a process of its own, for its peak memory, and kept with its picture in --work, so
that a table that was interrupted goes on. The images are one photograph, mirrored to size. The time is that
of the processor, user and system, over all threads: it depends little on what else the machine does.
"""

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from translate import peak_mib

WAYS = ("whole", "exact", "dense", "thumbnail", "naive")
TILE = 512
COLUMNS = ("pixels", "way", "MiB", "CPU s", "largest", "mean", "step across", "step down")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1024, 2048])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--generator", type=Path, help="folder of a saved generator; default random weights")
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiling"), help="where rows and pictures are kept"
    )
    parser.add_argument("--again", action="store_true", help="measure anew what is kept")
    parser.add_argument("--show", action="store_true", help="print what is kept, and measure nothing")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args()
    if args.one:
        _one(args.ways[0], args.sizes[0], args.work, args.generator)
        return
    weights = args.generator / "model.safetensors" if args.generator else None
    name = hashlib.sha256(weights.read_bytes()).hexdigest()[:12] if weights else "random"
    work = args.work / name
    work.mkdir(parents=True, exist_ok=True)
    for size in args.sizes:
        for way in args.ways:
            if not args.show and (args.again or not _kept(work, way, size)):
                _measure(way, size, work, args.generator)
    rows = [row for size in args.sizes for way in args.ways if (row := _row(way, size, work))]
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row.values()))
    Console().print(table)
    if args.json:
        print(json.dumps(rows))


def _kept(work: Path, way: str, size: int) -> dict[str, float] | None:
    """What a finished measurement said; its line is written after its picture."""
    path = work / f"{size}-{way}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _measure(way: str, size: int, work: Path, generator: Path | None) -> None:
    command = [sys.executable, __file__, str(size), "--ways", way, "--one", "--work", str(work)]
    subprocess.run([*command, *(["--generator", str(generator)] if generator else [])], check=True)


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
    (work / f"{size}-{way}.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
