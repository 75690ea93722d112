"""Tiles against the whole image: memory, time, difference, seams. `python benchmarks/tiling.py 1024 2048`.

Each way runs in a process of its own, for its peak memory; the images are one photograph, mirrored to size.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

WAYS = ("whole", "exact", "dense", "thumbnail", "naive")
TILE = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=[1024, 2048])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--generator", type=Path, help="folder of a saved generator; default random weights")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    args = parser.parse_args()
    if args.one:
        _one(args.one[0], int(args.one[1]), Path(args.one[2]), args.generator)
        return
    table = Table("pixels", "way", "MiB", "seconds", "largest", "mean", "step at borders / elsewhere")
    rows = []
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            for way in args.ways:
                row = _measure(way, size, Path(folder), args.generator, args.ways[0])
                rows.append(row)
                table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    if args.json:
        print(json.dumps(rows))


def _measure(way: str, size: int, folder: Path, generator: Path | None, reference: str) -> dict[str, object]:
    """One way in its own process, compared with the first way's result."""
    out = folder / f"{way}.npy"
    command = [sys.executable, __file__, "--one", way, str(size), str(out)]
    command += ["--generator", str(generator)] if generator else []
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said = json.loads(done.stdout.splitlines()[-1])
    made, whole = (np.load(path, mmap_mode="r") for path in (out, folder / f"{reference}.npy"))
    largest, total = 0, 0.0
    for top in range(0, size, 256):
        apart = np.abs(made[top : top + 256].astype(np.int16) - whole[top : top + 256])
        largest, total = max(largest, int(apart.max())), total + float(apart.sum())
    return {
        "size": size,
        "way": way,
        "MiB": said["MiB"],
        "seconds": said["seconds"],
        "largest": largest,
        "mean": round(total / made.size, 3),
        "step": _seam(made),
    }


def _seam(pixels: np.ndarray) -> float:
    """The mean step across the columns where tiles meet, in units of the step elsewhere."""
    total = np.zeros(pixels.shape[1] - 1)
    for top in range(0, len(pixels), 256):
        total += np.abs(np.diff(pixels[top : top + 256].astype(np.int16), axis=1)).mean(axis=2).sum(axis=0)
    across = np.zeros(len(total), bool)
    across[TILE - 1 :: TILE] = True
    return round(float(total[across].mean() / total[~across].mean()), 3)


def _photograph(size: int) -> np.ndarray:
    from skimage import data

    photo = data.astronaut()
    times = -(-size // photo.shape[0])
    tiles = [[photo[:: 1 - 2 * (y % 2), :: 1 - 2 * (x % 2)] for x in range(times)] for y in range(times)]
    # Lighter to the right and darker below, so that no tile is like another.
    picture = np.concatenate([np.concatenate(row, axis=1) for row in tiles])[:size, :size]
    for top in range(0, size, 256):
        part = picture[top : top + 256]
        y, x = np.ogrid[top : top + len(part), :size]
        part[:] = np.clip(part * (0.6 + 0.6 * x / size - 0.3 * y / size)[:, :, None], 0, 255)
    return picture


def _one(way: str, size: int, out: Path, generator: Path | None) -> None:
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
    began = time.perf_counter()
    if way == "whole":
        made = from_tensor(translate(network, to_tensor(pixels)[None], 4)[0])
    else:
        if way == "thumbnail":
            thumbnail = to_tensor(resize(pixels, 1024, 1024))[None]
            bands = dense_bands(
                with_statistics_of(network, thumbnail), ArraySource(pixels), TILE, 4, sample_pixels=0
            )
        else:
            bands = Tiler(network, 3, 4, Tiling(TILE, way)).bands(ArraySource(pixels))
        made = assembled(bands, pixels)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    np.save(out, made)
    print(json.dumps({"MiB": peak, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
