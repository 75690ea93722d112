"""What a run does about steps that were not applied: says so, goes back, or gives up with a diagnosis."""

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from torch import Tensor

from cyclegan.config import TrainSettings
from cyclegan.datasets.unpaired import UnpairedImages
from cyclegan.errors import shown
from cyclegan.training.checkpoint import Progress, cut_back, newest_good
from cyclegan.training.group import decided_by_main
from cyclegan.training.outcome import TrainingFailed
from cyclegan.training.run import Run
from cyclegan.training.step import FAR

TROUBLE = "trouble.jsonl"


class Recovery:
    """Counts the refused steps and the times that training went back.

    The latter are in the run's ``trouble.jsonl``, so that a resumed run goes on with the data order and
    the rate that it had. Of several processes the first one writes; all decide alike.
    """

    def __init__(
        self,
        settings: TrainSettings,
        run: Run,
        progress: Progress,
        accelerator: Accelerator,
        warn: Callable[..., None],
        settle: Callable[[], None],
    ) -> None:
        self.settings, self.run, self.progress = settings.numbers, run, progress
        self.batch_size, self.precision = settings.batch_size, accelerator.mixed_precision
        self.accelerator, self.warn = accelerator, warn
        self.settle = settle  # waits until nothing is being saved
        self.path = run.folder / TROUBLE
        self.in_a_row = 0
        self.setbacks = decided_by_main(accelerator, self._read)

    @property
    def rate(self) -> float:
        """The share of the learning rate that is left after all the times that training went back."""
        return self.settings.slow_down**self.setbacks

    @property
    def shift(self) -> int:
        """What is added to the positions of samples: no run reaches them, so that all is drawn anew.

        Whole batches, so that steps stay steps.
        """
        return self.setbacks * self.batch_size * FAR

    def after(
        self,
        wrong: Sequence[str],
        parts: Sequence[Mapping[str, Tensor]],
        dataset: UnpairedImages,
        put_back: Callable[[Path], Progress],
    ) -> bool:
        """Take note of a step; True when training went back, and batches and meter must begin anew.

        Args:
            wrong: what was not finite; nothing when the step was applied.
            parts: this process' share of the step's batch.
            put_back: takes all that decides the next step from a checkpoint, and returns its progress.

        Raises:
            TrainingFailed: it went wrong too often, or there is no checkpoint to go back to.
        """
        if not wrong:
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        files = self._files(parts, dataset)
        number = self.progress.step + 1
        images = shown(f"A {', '.join(files['a'])}; B {', '.join(files['b'])}")
        self.warn(
            "NaN",
            f"step {number} was not applied: {', '.join(wrong)} is NaN or infinite. Its images: {images}",
            number,
        )
        self._write({"step": number, "refused": list(wrong), **files})
        if self.in_a_row < self.settings.refused:
            return False
        self._go_back(number, wrong, files, put_back)
        return True

    def _files(self, parts: Sequence[Mapping[str, Tensor]], dataset: UnpairedImages) -> dict[str, list[str]]:
        """The files of the global batch, A and B."""
        found: dict[str, list[str]] = {"a": [], "b": []}
        for part in parts:
            places = part["position"].to(self.accelerator.device)
            for position in self.accelerator.gather(places).tolist():
                for side in ("A", "B"):
                    path = dataset.stores[side].paths[dataset.index(side, position)]
                    found[side.lower()].append(str(path))
        return found

    def _go_back(
        self,
        number: int,
        wrong: Sequence[str],
        files: Mapping[str, list[str]],
        put_back: Callable[[Path], Progress],
    ) -> None:
        self.settle()
        newest = decided_by_main(
            self.accelerator, lambda: newest_good(self.run.checkpoints, partial(self.warn, "Damaged"))
        )
        if newest is None or self.setbacks >= self.settings.setbacks:
            raise TrainingFailed(self._diagnosis(number, wrong, files, newest is not None))
        restored = put_back(newest)
        self.progress.step, self.progress.images_seen = restored.step, restored.images_seen
        self.setbacks += 1
        self.in_a_row = 0
        self._write({"step": number, "back_to": restored.step, "setbacks": self.setbacks})
        if self.accelerator.is_main_process:
            cut_back(self.run.metrics, restored.step)
        self.warn(
            "Setback",
            f"{self.settings.refused} steps in a row could not be applied: back to step {restored.step} "
            f"with a new data order and {self.rate:g} of the learning rate",
        )

    def _diagnosis(
        self, number: int, wrong: Sequence[str], files: Mapping[str, list[str]], saved: bool
    ) -> str:
        tried = f"after going back {self.setbacks} times " if self.setbacks else ""
        remedies = ["a lower --optimizer.lr"]
        if self.precision != "no":
            remedies.append(f"--precision no in place of {self.precision}")
        good = f"what was saved in {self.run.checkpoints} is good" if saved else "nothing was saved yet"
        return (
            f"{', '.join(wrong)} became NaN or infinite in {self.settings.refused} steps in a row up to step "
            f"{number} {tried}and none of them was applied; {good}. Try {' or '.join(remedies)}; the last "
            f"images were A {', '.join(files['a'])}; B {', '.join(files['b'])} (all: {self.path})"
        )

    def _read(self) -> int:
        """How often the run that is resumed had gone back, on the way to where it is resumed."""
        if not self.path.exists():
            return 0
        entries = (json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}"))
        back = [entry["back_to"] for entry in entries if "back_to" in entry]
        return sum(step <= self.progress.step for step in back)

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self.accelerator.is_main_process:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
