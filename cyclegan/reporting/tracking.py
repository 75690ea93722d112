"""All trackers of a run together: told the same, nothing twice, and never a reason to stop."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image

from cyclegan.config import TrainSettings
from cyclegan.files import replace_file
from cyclegan.reporting.trackers import Row, RunFacts, Tracker, make_tracker

RECORD = "tracking.json"
FAILURES = 3  # in a row, after which a tracker is told no more


class Tracking:
    """Sends numbers, pictures, tables and artifacts to the chosen trackers; without one it does nothing.

    Only the main process has trackers. A tracker that fails is named on standard error, and told no more
    when it goes on failing. ``tracking.json`` in the run's folder keeps each tracker's id of the run and
    the last step of each kind of entry, so that a resumed run tells no step twice.
    """

    def __init__(self, accelerator: Accelerator, settings: TrainSettings, folder: Path) -> None:
        self.accelerator, self.settings, self.folder = accelerator, settings, folder
        self.trackers: list[Tracker] = []  # once they have started
        self.failures: dict[str, int] = {}  # in a row
        self.record: dict[str, dict[str, Any]] = {}

    def start(self, run_name: str, config: Mapping[str, Any], step: int, run_id: str | None) -> str | None:
        """Begin the run with every tracker, or go on with it from ``step``; returns W&B's id of it.

        ``run_id`` is that id as the checkpoint has it, for runs from before there was a record.
        """
        if not self.accelerator.is_main_process or not self.settings.trackers:
            return None
        path, chosen = self.folder / RECORD, self.settings.tracking
        if step and path.exists():
            self.record = json.loads(path.read_text())
        elif run_id is not None:
            self.record = {"wandb": {"id": run_id, "last": {}}}
        for tracker in map(make_tracker, self.settings.trackers):
            facts = RunFacts(
                folder=self.folder,
                project=self.settings.project,
                name=run_name,
                group=chosen.group,
                tags=chosen.tags,
                notes=chosen.notes,
                config=config,
                step=step,
                begun=self.record.get(tracker.name),
            )
            try:
                run_id = tracker.start(facts)
            except Exception as error:
                _warn(tracker, "did not start", error)
                continue
            self.trackers.append(tracker)
            self.failures[tracker.name] = 0
            known = self.record.setdefault(tracker.name, {"last": {}})
            known |= {"id": run_id, **tracker.record()}
            arrived = tracker.told()
            if arrived is not None:
                known["last"] |= {kind: min(known["last"].get(kind, -1), arrived[kind]) for kind in arrived}
            if tracker.rewinds:
                known["last"] = {kind: min(last, step) for kind, last in known["last"].items()}
        self._write_record()
        return self.record.get("wandb", {}).get("id")

    def log(self, values: Mapping[str, float], step: int, kind: str = "numbers") -> None:
        """Numbers by name, ``images_seen`` among them; a ``kind`` goes up in steps on its own."""
        self._tell(kind, step, lambda tracker: tracker.log(values, step))

    def log_grid(self, grid: Image.Image, step: int, images_seen: int, caption: str = "") -> None:
        place = {"step": step, "images_seen": images_seen}
        self._tell("samples", step, lambda tracker: tracker.log_picture("samples", grid, caption, place))

    def log_evaluation(self, line: Mapping[str, Any], step: int) -> None:
        """One line of evaluations.jsonl, as ``AtoB/kid_vgg19`` with its interval and its two anchors."""
        direction = line["direction"]
        values = {"images_seen": line["images_seen"], **dict(_evaluated(direction, line["metrics"]))}
        self.log(values, step, f"evaluation {direction}")

    def log_table(self, name: str, columns: Sequence[str], rows: Sequence[Row], step: int) -> None:
        """Held-out images and what is said of each; cells are words, numbers and PIL images."""
        self._tell(f"table {name}", step, lambda tracker: tracker.log_table(name, columns, rows, step))

    def log_card(self, name: str, card: Path, about: Mapping[str, Any]) -> None:
        """The data card that the run rests on; once a run."""
        self._tell("card", 0, lambda tracker: tracker.log_card(name, card, about))

    def log_generator(self, name: str, folder: Path, about: Mapping[str, Any], step: int) -> None:
        """A saved generator, as it is at ``step``."""
        self._tell(f"generator {name}", step, lambda tracker: tracker.log_generator(name, folder, about))

    def alert(self, title: str, text: str, step: int) -> None:
        """A message to whoever watches the run: something went wrong."""
        self._tell(f"alert {title}", step, lambda tracker: tracker.alert(title, text, step))

    def finish(self, failed: bool = False) -> str | None:
        """Close the trackers, and the ties between processes; returns how to upload an offline run."""
        uploads = self._close(failed)
        # A process that leaves with gloo's threads alive may abort on its way out.
        self.accelerator.end_training()
        return "; ".join(uploads) or None

    def abandon(self) -> None:
        """Close the trackers of a run that ended with an error; the other processes are left alone."""
        self._close(failed=True)

    def _close(self, failed: bool) -> list[str]:
        uploads = []
        for tracker in self.trackers:
            try:
                uploads.append(tracker.finish(failed))
            except Exception as error:
                _warn(tracker, "did not close", error)
            self.record[tracker.name] |= tracker.record()
        if self.trackers:
            self._write_record()
        self.trackers = []
        return [upload for upload in uploads if upload is not None]

    def _tell(self, kind: str, step: int, call: Callable[[Tracker], None]) -> None:
        """``call`` for each tracker that was not told this kind of entry for ``step`` already."""
        told = False
        for tracker in self.trackers:
            known = self.record[tracker.name]
            if self.failures[tracker.name] == FAILURES or step <= known["last"].get(kind, -1):
                continue
            try:
                call(tracker)
            except Exception as error:
                self._failed(tracker, kind, error)
                continue
            self.failures[tracker.name] = 0
            known["last"][kind] = step
            known |= tracker.record()
            told = True
        if told:
            self._write_record()

    def _failed(self, tracker: Tracker, kind: str, error: Exception) -> None:
        tracker.doubtful = True
        self.failures[tracker.name] += 1
        if self.failures[tracker.name] == 1:
            _warn(tracker, f"could not take {kind}", error)
        elif self.failures[tracker.name] == FAILURES:
            _warn(tracker, f"failed {FAILURES} times in a row and is told no more", error)

    def _write_record(self) -> None:
        try:
            replace_file(self.folder / RECORD, json.dumps(self.record, indent=1).encode(), lasting=True)
        except OSError as error:
            print(f"{self.folder / RECORD}: cannot be written ({error.strerror})", file=sys.stderr)


def _evaluated(direction: str, metrics: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, float]]:
    for name, found in metrics.items():
        yield f"{direction}/{name}", found["value"]
        for anchor in ("inputs", "target_train"):
            if found.get(anchor) is not None:
                yield f"{direction}/{name}/{anchor}", found[anchor]
        interval = found.get("interval")
        if isinstance(interval, Sequence):
            yield f"{direction}/{name}/low", interval[0]
            yield f"{direction}/{name}/high", interval[1]


def _warn(tracker: Tracker, what: str, error: Exception) -> None:
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    print(f"{tracker.name} {what} ({reason}); training goes on, metrics.jsonl has it all", file=sys.stderr)
