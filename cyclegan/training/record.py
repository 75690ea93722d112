"""What a run says of itself while it goes on: about.json, warnings.jsonl and report.html."""

import json
import traceback
from collections.abc import Callable
from pathlib import Path

from accelerate import Accelerator

from cyclegan.datasets.domain import Domain
from cyclegan.reporting.report import WARNINGS, write_about, write_report
from cyclegan.reporting.report.about import begin_about, now
from cyclegan.training.checkpoint import Progress, cut_back, read_log


class Record:
    """Written by the main process alone; a report that cannot be made never ends a training."""

    def __init__(
        self, folder: Path, domain: Domain, accelerator: Accelerator, say: Callable[[str], None], step: int
    ) -> None:
        """``step``: where the run goes on from; warnings from beyond are dropped, they may come again."""
        self.folder, self.say = folder, say
        cut_back(folder / WARNINGS, step)
        self.warnings = read_log(folder / WARNINGS)
        self.about = begin_about(folder, domain, accelerator.num_processes, accelerator.mixed_precision)

    def update(self, progress: Progress, done: float, ended: bool = False) -> None:
        """Write about.json and the report anew; each replaces the older file in one piece."""
        self._write({"minutes": progress.minutes, "done": done, "ended": now() if ended else None})

    def warn(self, step: int, title: str, message: str) -> None:
        """Keep a warning for the report, and show it there; what each start says is kept once."""
        if any(message == known["message"] for known in self.warnings):
            return
        line = {"step": step, "title": title, "message": message}
        self.warnings.append(line)
        try:
            with (self.folder / WARNINGS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            self.say(f"{self.folder / WARNINGS}: cannot be written ({error.strerror}); training goes on")
        self._write({})

    @property
    def titles(self) -> set[str]:
        """Of the warnings so far, those before a resume as well."""
        return {line.get("title", "") for line in self.warnings}

    def _write(self, changes: dict[str, object]) -> None:
        self.about = self.about.model_copy(update={**changes, "updated": now()})
        try:
            write_about(self.folder, self.about)
            write_report(self.folder)
        except Exception:  # whatever it is, hours of training are worth more than the page about them
            reason = traceback.format_exc(limit=-1).strip().splitlines()[-1]
            self.say(f"report.html was not written ({reason}); training goes on")
