"""What a run says of itself while it goes on: about.json, warnings.jsonl and report.html."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from cyclegan.datasets.domain import Domain
from cyclegan.reporting.report import WARNINGS, write_about, write_report
from cyclegan.reporting.report.about import begin_about, now
from cyclegan.training.checkpoint import Progress


class Record:
    """Written by the main process alone; a report that cannot be made never ends a training."""

    def __init__(
        self, folder: Path, domain: Domain, accelerator: Accelerator, say: Callable[[str], None]
    ) -> None:
        self.folder, self.say = folder, say
        self.about = begin_about(folder, domain, accelerator.num_processes, accelerator.mixed_precision)

    def update(self, progress: Progress, done: float, ended: bool = False) -> None:
        """Write about.json and the report anew; each replaces the older file in one piece."""
        self._write({"minutes": progress.minutes, "done": done, "ended": now() if ended else None})

    def warn(self, step: int, message: str) -> None:
        """Keep a warning for the report, and show it there."""
        try:
            with (self.folder / WARNINGS).open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, "message": message}) + "\n")
        except OSError as error:
            self.say(f"{self.folder / WARNINGS}: cannot be written ({error.strerror}); training goes on")
        self._write({})

    def _write(self, changes: dict[str, object]) -> None:
        self.about = self.about.model_copy(update={**changes, "updated": now()})
        try:
            write_about(self.folder, self.about)
            write_report(self.folder)
        except Exception:  # whatever it is, hours of training are worth more than the page about them
            reason = traceback.format_exc(limit=-1).strip().splitlines()[-1]
            self.say(f"report.html was not written ({reason}); training goes on")
