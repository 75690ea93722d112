"""A whole run over a fixed time, everything on: images/s, and what it costs beside the bare step.

The run is `cyclegan train`'s own: data, averages, the log, grids, checkpoints, a tracker. Its steps are timed
inside it, so that both numbers are of the same minutes; the rest is said by what it went to. Nothing but
what happens between the first step's begin and the last one's end counts; `startup.py` measures the rest.

"overhead" is beside the steps' own time, "beside median steps" beside as many steps of median length: that
counts, too, what slows a step, as a checkpoint that is written meanwhile does, and whatever else a shared
machine does.
"""

import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import tyro
from step import conclude

from cyclegan.allocation import keep_freed_memory
from cyclegan.config import TrainSettings
from cyclegan.recipes import read_yaml
from cyclegan.training import loop
from cyclegan.training.loop import Trainer


class Clock:
    """Seconds by what they went to; a GPU's work is waited for, so that it counts where it belongs."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.began = self.ended = self.total = 0.0
        self.frozen: dict[str, list[float]] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            result = function(*args, **kwargs)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            self.ended = time.perf_counter()
            self.began = self.began or began
            self.seconds[name].append(self.ended - began)
            return result

        return run


def watch(trainer: Trainer, clock: Clock) -> None:
    """Time the parts of a run from outside; what they do stays as it is."""
    step = trainer.step

    class Step(type(step)):
        __call__ = staticmethod(clock.timed("step", lambda *given: step(*given)))

    timed = Step.__new__(Step)
    timed.__dict__ = step.__dict__
    trainer.step = timed
    loop.update_average = clock.timed("averages", loop.update_average)
    trainer._log = clock.timed("log", trainer._log)
    trainer._sample = clock.timed("grids", trainer._sample)
    trainer._keep = clock.timed("checkpoints", trainer._keep)
    trainer._judge = clock.timed("evaluation", trainer._judge)
    batches = trainer.batches

    def waited() -> Any:
        found = batches()
        get = clock.timed("data", lambda: next(found))
        while True:
            yield get()

    trainer.batches = waited
    # What comes after the last step is not the loop's.
    finish = trainer._finish

    def finished() -> Any:
        clock.total = time.perf_counter() - clock.began
        clock.frozen = {name: list(values) for name, values in clock.seconds.items()}
        return finish()

    trainer._finish = finished


def main(
    recipe: Path = Path("experiments/noto2twemoji.yaml"),
    minutes: float = 2.0,
    every: int | None = None,
    evaluate: bool = False,
    json: bool = False,
) -> None:
    """Measure a run end to end.

    Args:
        recipe: what is trained
        minutes: how long
        every: steps between two grids and two checkpoints; default: the recipe's
        evaluate: judge held-out images as often, as a run with the extra eval does
        json: end with one line of JSON
    """
    given = read_yaml(recipe)
    tracker = "tensorboard" if find_spec("tensorboard") else "none"
    with tempfile.TemporaryDirectory() as temporary:
        changes = {
            "minutes": minutes, "steps": None, "epochs": None, "images": None, "tracker": tracker,
            "run_dir": Path(temporary) / "run",
        }  # fmt: skip
        if every is not None:
            changes |= {name: {**given.get(name, {}), "every": every} for name in ("samples", "checkpoint")}
        judged = {**given.get("evaluation", {}), **({} if every is None else {"every": every})}
        changes["evaluation"] = judged if evaluate else {"every": 0}
        settings = TrainSettings(**{**given, **changes})
        keep_freed_memory()  # as `cyclegan train` does
        trainer, clock = Trainer(settings), Clock()
        watch(trainer, clock)
        trainer.train()
    found, total = clock.frozen, clock.total
    steps, stepped = len(found["step"]), sum(found["step"])
    median = statistics.median(found["step"][1:])
    parts = {name: sum(values) for name, values in found.items() if name != "step"}
    parts["other"] = total - stepped - sum(parts.values())
    report = {
        "recipe": str(recipe),
        "precision": trainer.accelerator.mixed_precision,
        "tracker": tracker,
        "steps": steps,
        "grids": len(found.get("grids", ())),
        "checkpoints": len(found.get("checkpoints", ())),
        "images_per_s": round(steps * settings.batch_size / total, 3),
        "bare_step_images_per_s": round(settings.batch_size / median, 3),
        "overhead_percent": round(100 * (total - stepped) / stepped, 2),
        "beside_median_steps_percent": round(100 * (total / (steps * median) - 1), 2),
        **{f"{name}_percent": round(100 * value / stepped, 2) for name, value in parts.items()},
    }
    for key, value in report.items():
        print(f"{key.replace('_', ' '):>24}  {value}")
    conclude(report, json)


if __name__ == "__main__":
    tyro.cli(main)
