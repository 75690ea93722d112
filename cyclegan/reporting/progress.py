"""Where a run stands, in one line: a live bar on a terminal, now and then a plain line elsewhere."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from rich.progress import BarColumn, Progress, TextColumn

PLAIN_EVERY_S = 30


@dataclass
class Standing:
    """What the line says."""

    step: int = 0
    done: float = 0.0
    seconds_left: float | None = None
    images_per_s: float = 0.0
    losses: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        left = "?" if self.seconds_left is None else timedelta(seconds=round(self.seconds_left))
        losses = "  ".join(f"{name} {value:.3f}" for name, value in self.losses.items())
        speed = f"{self.images_per_s:.1f} images/s" if self.images_per_s else ""
        return f"step {self.step} ({self.done:.0%})  {speed}  {left} left  {losses}"


class TrainingProgress:
    """Shows a standing; one process shows, the others keep silent."""

    def __init__(self, visible: bool) -> None:
        self.visible = visible
        self.live = visible and sys.stderr.isatty()
        columns = (BarColumn(bar_width=20), TextColumn("{task.description}"))
        self.bar = Progress(*columns, disable=not self.live)
        self.task = self.bar.add_task("", total=1.0)
        self.last_line = -PLAIN_EVERY_S

    def __enter__(self) -> "TrainingProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def show(self, standing: Standing) -> None:
        if self.live:
            self.bar.update(self.task, completed=standing.done, description=str(standing))
        elif self.visible and standing.losses and time.monotonic() - self.last_line > PLAIN_EVERY_S:
            self.last_line = time.monotonic()
            print(standing, file=sys.stderr, flush=True)

    def say(self, message: str) -> None:
        """A line that stays."""
        if self.live:
            self.bar.console.print(message, highlight=False, markup=False, soft_wrap=True)
        elif self.visible:
            print(message, file=sys.stderr, flush=True)
