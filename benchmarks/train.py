"""A whole run over a fixed time, everything on: images/s, and what it costs beside the bare step.

The run is `cyclegan train`'s own: data, averages, the log, grids, checkpoints, a tracker. Its steps are timed
inside it, so that both numbers are of the same minutes; the rest is said by what it went to. Nothing but
what happens between the first step's begin and the last one's end counts; `startup.py` measures the rest.
Recipes save and draw a grid each some hundred steps, which in two minutes may not come. So both come about
EVENTS times, oftener than in a long run: what they cost there is less.

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
from entry import at_least, buildable, more_than_none, read_recipe, run
from machine import conclude

from cyclegan.allocation import keep_freed_memory
from cyclegan.errors import Failed
from cyclegan.training import loop
from cyclegan.training.loop import Trainer

EVENTS = 6  # grids, and checkpoints, within the time, where neither recipe nor --every has more
TIMED = 3  # steps from which it is known how many fit; the first takes longer than the others


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


def come_in_time(trainer: Trainer, clock: Clock, minutes: float) -> None:
    """Grids and checkpoints as the recipe says, oftener where they would come less than EVENTS times."""
    after_step = trainer._after_step

    def then(*given: Any) -> None:
        steps = clock.seconds["step"]
        if len(steps) == TIMED:
            a_step = statistics.median(steps[1:])
            at_most = max(1, int(60 * minutes / a_step / (EVENTS + 1)))
            settings = trainer.settings
            tables = {name: getattr(settings, name) for name in ("samples", "checkpoint")}
            changed = {
                name: table.model_copy(update={"every": min(table.every, at_most)})
                for name, table in tables.items()
            }
            trainer.settings = settings.model_copy(update=changed)
        after_step(*given)

    trainer._after_step = then


def missing(report: dict[str, Any]) -> str | None:
    """What was not in the overhead, in words; None if all was."""
    names = [name for name in ("grids", "checkpoints") if not report[name]]
    if not names:
        return None
    every = f"--every below {report['steps']}" if report["steps"] > 1 else "more --minutes"
    return f"no {' and no '.join(names)} within the time: the overhead is without them; take {every}"


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
        every: steps between two grids and two checkpoints; default: the recipe's, or fewer, so that both come
            several times
        evaluate: judge held-out images as often, as a run with the extra eval does
        json: end with one line of JSON
    """
    more_than_none(minutes=minutes)
    if every is not None:
        at_least(1, every=every)
    given = read_recipe(recipe)
    tracker = "tensorboard" if find_spec("tensorboard") else "none"
    with tempfile.TemporaryDirectory() as temporary:
        changes = {
            "minutes": minutes, "steps": None, "epochs": None, "images": None, "tracker": tracker,
            "run_dir": Path(temporary) / "run",
            "pretrain": {},  # which may be longer than all of this, and is without discriminators
        }  # fmt: skip
        if every is not None:
            changes |= {name: {**given.get(name, {}), "every": every} for name in ("samples", "checkpoint")}
        judged = {**given.get("evaluation", {}), **({} if every is None else {"every": every})}
        changes["evaluation"] = judged if evaluate else {"every": 0}
        settings = buildable({**given, **changes}, recipe)
        keep_freed_memory()  # as `cyclegan train` does
        trainer, clock = Trainer(settings), Clock()
        watch(trainer, clock)
        if every is None:
            come_in_time(trainer, clock, minutes)
        trainer.train()
    found, total = clock.frozen, clock.total
    steps, stepped = len(found["step"]), sum(found["step"])
    if steps < 2:
        raise Failed(f"--minutes {minutes:g}: held {steps} step, and the first is no measure; take more")
    median = statistics.median(found["step"][1:])
    parts = {name: sum(values) for name, values in found.items() if name != "step"}
    parts["other"] = total - stepped - sum(parts.values())
    report = {
        "recipe": str(recipe),
        "precision": trainer.accelerator.mixed_precision,
        "tracker": tracker,
        "steps": steps,
        "grids_every": trainer.settings.samples.every,
        "checkpoints_every": trainer.settings.checkpoint.every,
        "grids": len(found.get("grids", ())),
        "checkpoints": len(found.get("checkpoints", ())),
        "images_per_s": round(steps * trainer.settings.batch_size / total, 3),
        "bare_step_images_per_s": round(trainer.settings.batch_size / median, 3),
        "overhead_percent": round(100 * (total - stepped) / stepped, 2),
        "beside_median_steps_percent": round(100 * (total / (steps * median) - 1), 2),
        **{f"{name}_percent": round(100 * value / stepped, 2) for name, value in parts.items()},
    }
    for key, value in report.items():
        print(f"{key.replace('_', ' '):>24}  {value}")
    if words := missing(report):
        print(f"Note: {words}")
    conclude(report, json)


if __name__ == "__main__":
    run(main)
