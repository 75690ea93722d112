"""Kill a training run with SIGKILL again and again, resume it each time, compare it with one never killed.

A third of the kills hit a save: they wait for its partly written folder. A tenth hit the end of the run,
from its last save on: generators, grid, held-out images. The others come at any step. Prints
a line for each kill, then the totals and, with --json, one JSON line; exit status 1 unless all is identical.
"""

import importlib
import json as json_module
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from entry import at_least, run
from PIL import Image

from cyclegan import cli
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.recipes import to_yaml
from cyclegan.training.checkpoint import checkpoints, read_checkpoint, step_of

PATIENCE_S = 120  # a run that shows no progress for so long is broken


@dataclass(frozen=True)
class Kill:
    """When to strike: at a step, inside the save of a step, or so many seconds into the final export."""

    kind: str
    step: int
    delay: float


def draw_pictures(folder: Path, count: int, size: int) -> None:
    """Two domains of noise; what is learned does not matter here, only that it is the same."""
    draw = np.random.default_rng(0)
    for split, number in {"trainA": count, "trainB": count - 4, "testA": 4, "testB": 4}.items():
        (folder / split).mkdir(parents=True)
        for i in range(number):
            pixels = draw.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{i:03d}.png")


def plan(kills: int, steps: int, every: int, draw: random.Random) -> list[Kill]:
    """The kills in the order in which a run that goes on after each meets them."""
    at_end = max(1, kills // 10) if kills > 2 else 0
    in_save = max(1, kills // 3) if kills > 1 else 0
    planned = [Kill("step", draw.randrange(2, steps), 0.0) for _ in range(kills - at_end - in_save)]
    for _ in range(in_save):
        step = every * draw.randrange(1, math.ceil(steps / every))
        planned.append(Kill("save", step, draw.uniform(0, 0.004)))
    planned.sort(key=lambda kill: (kill.step, kill.kind))
    return planned + [Kill("end", steps, draw.uniform(0, 0.2)) for _ in range(at_end)]


class Life:
    """One process of the run, from its start to its kill or its end.

    It is forked from this one, which has imported torch but computed nothing, so that no time goes into
    importing it again.
    """

    def __init__(self, recipe: Path, run: Path, log: Path) -> None:
        self.run, self.log = run, log
        self.status: int | None = None
        self.process = os.fork()
        if self.process == 0:
            os.setsid()
            output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.chdir(recipe.parent)
            try:
                cli.main(["train", str(recipe), "--run-dir", str(run), "--resume", "auto"])
            except SystemExit as leaving:
                sys.stdout.flush()
                os._exit(int(leaving.code or 0))
            os._exit(1)

    def ended(self) -> bool:
        if self.status is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            if process:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status is not None

    def step(self) -> int:
        """The last step that the log tells of."""
        return last_step(self.run)

    def watch(self) -> Iterator[None]:
        """Look again and again, until the process ends."""
        seen, since = -1, time.monotonic()
        while not self.ended():
            if (step := self.step()) != seen:
                seen, since = step, time.monotonic()
            if time.monotonic() - since > PATIENCE_S:
                self.kill()
                sys.exit(f"kill_resume: no step for {PATIENCE_S} s; see {self.log}")
            yield
            time.sleep(0.0005)

    def kill(self) -> None:
        """SIGKILL, to the loader processes as well: they are in its session."""
        os.killpg(self.process, signal.SIGKILL)
        if self.status is None:
            self.status = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])

    def live_until(self, kill: Kill) -> bool:
        """Strike where the kill says; False if the process ended before."""
        # The process' number tells its own partly written folders from what an earlier kill left.
        partial = f".step-{kill.step:08d}.{self.process}.part"
        exported = f".G_AB.{self.process}.part"
        for _ in self.watch():
            if kill.kind == "step":
                due = self.step() >= kill.step
            elif kill.kind == "save":
                due = (self.run / "checkpoints" / partial).is_dir() or self.step() > kill.step + 20
            else:
                due = self.step() >= kill.step and (self.run / "generators" / exported).is_dir()
            if due:
                time.sleep(kill.delay)
                if self.ended():
                    return False
                self.kill()
                return True
        return False

    def live(self) -> None:
        for _ in self.watch():
            pass
        if self.status:
            sys.exit(f"kill_resume: exit status {self.status}; see {self.log}")


def last_step(run: Path) -> int:
    try:
        lines = (run / "metrics.jsonl").read_bytes().splitlines()
    except FileNotFoundError:
        return 0
    for line in reversed(lines):
        if line.endswith(b"}"):
            return json_module.loads(line)["step"]
    return 0


def newest_step(run: Path) -> int:
    return max((step_of(path) for path in checkpoints(run / "checkpoints")), default=0)


def differences(one: object, other: object, name: str = "") -> Iterator[str]:
    """Where two nested states differ, in any bit."""
    if isinstance(one, torch.Tensor):
        same = isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
        if not same:
            yield name
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}, key=str):
            yield from differences(one.get(key), other.get(key), f"{name}.{key}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, pair in enumerate(zip(one, other, strict=True)):
            yield from differences(*pair, f"{name}[{index}]")
    elif one != other:
        yield name


def compare(whole: Path, broken: Path) -> list[str]:
    """All that differs: the last checkpoint, the generators' files, the log (but for its speeds)."""
    states = []
    for folder in (whole, broken):
        state, progress = read_checkpoint(checkpoints(folder / "checkpoints")[-1])
        states.append({**state, "step": progress.step, "images_seen": progress.images_seen})
    found = list(differences(*states, "checkpoint"))
    for name in ("G_AB", "G_BA"):
        file = Path("generators", name, "model.safetensors")
        if (whole / file).read_bytes() != (broken / file).read_bytes():
            found.append(str(file))
    logs = []
    for folder in (whole, broken):
        lines = [json_module.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        logs.append([{**line, "images_per_s": None} for line in lines])
    return found + list(differences(*logs, "metrics.jsonl"))


def settings(root: Path, steps: int, every: int, precision: str, workers: int) -> TrainSettings:
    return TrainSettings(
        steps=steps,
        size=32,
        batch_size=2,
        precision=precision,
        tracker="none",
        pool_size=8,
        log_every=1,
        data={"root": root, "workers": workers},
        generator={"filters": 8, "blocks": 1, "dropout": True},
        discriminator={"filters": 8, "layers": 2},
        samples={"count": 2, "every": 10**6, "translate": 4},
        checkpoint={"every": every},
    )


def strike(planned: list[Kill], recipe: Path, run: Path, log: Path) -> list[dict]:
    """Go through all kills; what each cost."""
    struck = []
    for number, kill in enumerate(planned, 1):
        life = Life(recipe, run, log)
        if not life.live_until(kill):
            life.live()  # ends the program if it failed
            print(f"{number:>4} {kill.kind:>5}: the run ended before", flush=True)
            continue
        inside = any((run / "checkpoints").glob(".*.part"))
        reached, saved = last_step(run), newest_step(run)
        print(
            f"{number:>4} {kill.kind:>5} at step {reached:>5}, last checkpoint {saved:>5}, "
            f"{reached - saved:>3} steps lost{', inside a save' if inside else ''}",
            flush=True,
        )
        struck.append({"kind": kill.kind, "inside_a_save": inside, "lost": max(0, reached - saved)})
    return struck


def main(
    kills: int = 50,
    steps: int | None = None,
    every: int = 10,
    precision: Literal["no", "bf16"] = "no",
    workers: int = 0,
    seed: int = 0,
    folder: Path | None = None,
    json: bool = False,
) -> None:
    """Kill and resume a run, and compare it with one that was never killed.

    Args:
        kills: how many times
        steps: of the whole run; default: 12 for each kill
        every: steps between two checkpoints
        precision: no (fp32) or bf16
        workers: processes that load images
        seed: of the moments to kill at
        folder: where to work; default: a temporary one, removed afterwards
        json: end with one line of JSON
    """
    at_least(1, kills=kills, every=every)
    at_least(0, workers=workers)
    steps = 12 * kills if steps is None else steps
    at_least(3, steps=steps)  # a kill comes at the second one, or later, and before the last
    if kills > 1 and steps <= every:
        raise BadInput(f"--every: {every} of {steps} steps leave no save to be killed in; take fewer")
    if folder is not None and (folder / "pictures").exists():
        raise BadInput(f"--folder: {folder} has pictures already; take another, or remove what is in it")
    for module in ("cyclegan.training.loop", "cyclegan.training.command", "albumentations"):
        importlib.import_module(module)  # once, here, for all lives
    with tempfile.TemporaryDirectory() as temporary:
        here = (folder or Path(temporary)).resolve()
        draw_pictures(here / "pictures", 24, 32)
        recipe = here / "recipe.yaml"
        recipe.write_text(to_yaml(settings(here / "pictures", steps, every, precision, workers)))
        whole, broken = here / "whole", here / "broken"
        began = time.monotonic()
        Life(recipe, whole, here / "whole.log").live()
        unbroken_s = time.monotonic() - began
        struck = strike(plan(kills, steps, every, random.Random(seed)), recipe, broken, here / "broken.log")
        Life(recipe, broken, here / "broken.log").live()
        found = compare(whole, broken)
        report = {
            "kills": len(struck),
            "resumes": len(struck),
            "inside_a_save": sum(kill["inside_a_save"] for kill in struck),
            "at_the_end": sum(kill["kind"] == "end" for kill in struck),
            "steps": steps,
            "checkpoint_every": every,
            "lost_steps": sum(kill["lost"] for kill in struck),
            "most_lost_at_once": max((kill["lost"] for kill in struck), default=0),
            "precision": precision,
            "workers": workers,
            "seconds": round(time.monotonic() - began, 1),
            "seconds_unbroken": round(unbroken_s, 1),
            "identical": not found,
        }
    for key, value in report.items():
        print(f"{key.replace('_', ' '):>18}  {value}")
    print("weights, optimizers, pools and log identical: " + ("yes" if not found else f"no: {found[:5]}"))
    if json:
        print(json_module.dumps(report))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    run(main)
