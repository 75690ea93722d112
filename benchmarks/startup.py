"""Seconds from the command to what somebody waits for: the help, the first step, the first picture.

Each is measured from outside, in fresh processes that take turns; numbers are medians. The first step is
that of a recipe on its own images, decoding included; the first picture comes from a 9-block generator.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from entry import SMALLEST, at_least, buildable, read_recipe, run
from machine import conclude
from translate import make_generator, make_photographs

from cyclegan.errors import Failed

CYCLEGAN = [sys.executable, "-m", "cyclegan"]


def until_done(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([*CYCLEGAN, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def until_first_step(recipe: Path, folder: Path) -> float:
    """Until the log has the first step's line; the run is ended then."""
    began = time.perf_counter()
    arguments = ["train", str(recipe), "--run-dir", str(folder), "--tracker", "none", "--log-every", "1"]
    training = subprocess.Popen([*CYCLEGAN, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    log = folder / "metrics.jsonl"
    try:
        while not (log.exists() and log.stat().st_size):
            if training.poll() is not None:
                raise Failed(training.stderr.read().decode().strip())
            time.sleep(0.005)
        return time.perf_counter() - began
    finally:
        training.kill()
        training.wait()


def main(
    recipe: Path = Path("experiments/noto2twemoji.yaml"),
    size: int = 256,
    repeats: int = 3,
    json: bool = False,
) -> None:
    """Measure how long the commands take to begin.

    Args:
        recipe: of the first step
        size: height and width of the picture that is translated
        repeats: runs of which the median is taken
        json: end with one line of JSON
    """
    at_least(1, repeats=repeats)
    at_least(SMALLEST, size=size)
    buildable(read_recipe(recipe), recipe)
    seconds: dict[str, list[float]] = {"help": [], "first_step": [], "first_picture": []}
    os.environ.pop("PYTHONSTARTUP", None)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        make_photographs(work / "in", 1, size)
        make_generator(work / "generator", size, 64, 9)
        for turn in range(repeats):
            seconds["help"].append(until_done("--help"))
            seconds["first_step"].append(until_first_step(recipe, work / f"run{turn}"))
            out = str(work / f"out{turn}")
            seconds["first_picture"].append(
                until_done("translate", str(work / "generator"), str(work / "in"), out)
            )
    report = {name: round(statistics.median(values), 3) for name, values in seconds.items()}
    for name, value in report.items():
        print(f"{name.replace('_', ' '):>14}  {value} s")
    conclude(report, json)


if __name__ == "__main__":
    run(main)
