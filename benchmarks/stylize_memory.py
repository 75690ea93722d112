"""What `cyclegan stylize` takes for large pictures: seconds, and the largest resident memory.

python benchmarks/stylize_memory.py --sizes 512 1024 2048 --json

Each row is the command on a picture of that size, in a process of its own, coarse to fine with so few steps
that it ends within minutes: memory is that of the full size with L-BFGS's memory as full as it gets by then.
"""

import tempfile
from json import dumps
from pathlib import Path

import torch
from entry import SMALLEST, at_least, run
from methods import command
from stylize import make_pictures


def main(sizes: tuple[int, ...] = (512, 1024, 2048), steps: int = 16, json: bool = False) -> None:
    """Stylize a picture of each size by optimization.

    Args:
        sizes: heights and widths of the pictures
        steps: at the full size
        json: end with one line of JSON
    """
    at_least(1, steps=steps)
    at_least(SMALLEST, sizes=sizes)
    rows = []
    print(f"{'size':>6} {'seconds':>9} {'MiB':>7}", flush=True)
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            make_pictures(work, size)
            words = [str(work / name) for name in ("content.png", "style.png", "made.png")]
            seconds, mib = command(["stylize", *words, "--steps", str(steps)])
        rows.append({"size": size, "seconds": round(seconds, 1), "mib": round(mib)})
        print(f"{size:>6} {seconds:>9.1f} {mib:>7.0f}", flush=True)
    if json:
        print(dumps({"steps": steps, "threads": torch.get_num_threads(), "rows": rows}))


if __name__ == "__main__":
    run(main)
