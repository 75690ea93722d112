"""How a run ends: done, failed, or stopped to go on later."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cyclegan.errors import Failed
from cyclegan.training.run import Run


class TrainingFailed(Failed):
    """The run cannot go on; what was saved before stays good. Exit status 1."""


class TrainingStopped(Exception):
    """A signal asked for it; all is saved. Exit status 75, which asks a scheduler to start it again."""


@dataclass(frozen=True)
class Result:
    """What a finished run leaves behind."""

    run: Run
    directions: Mapping[str, str]  # of each generator
    grid: Path
    step: int
    images_seen: int
    minutes: float
    metrics: dict[str, float]
    translated: list[Path]
    upload: str | None
    is_main: bool

    def summary(self) -> dict[str, Any]:
        """For scripts: paths as text."""
        return {
            "run": str(self.run.folder),
            "generators": {name: str(self.run.generator(name)) for name in self.directions},
            "grid": str(self.grid),
            "translated": [str(folder) for folder in self.translated],
            "steps": self.step,
            "images_seen": self.images_seen,
            "minutes": self.minutes,
            "metrics": self.metrics,
        }
