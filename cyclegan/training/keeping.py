"""What a run keeps: checkpoints and the generators beside them, in the background where that is safe."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import Domain
from cyclegan.files import flush
from cyclegan.training.checkpoint import Progress, save_checkpoint
from cyclegan.training.guard import refuse_not_finite
from cyclegan.training.run import Run, export_generators
from cyclegan.training.saving import Saver, copied
from cyclegan.training.state import state_of
from cyclegan.training.step import TrainingStep


class Keeper:
    """Saves the state of one run; of several processes the main one has it to do."""

    def __init__(
        self,
        run: Run,
        settings: TrainSettings,
        domain: Domain,
        step: TrainingStep,
        averaged: Mapping[str, nn.Module],
        saver: Saver,
    ) -> None:
        self.run, self.settings, self.domain = run, settings, domain
        self.step, self.averaged, self.saver = step, averaged, saver

    def save(self, progress: Progress, meter: Mapping[str, Any], at_once: bool = False) -> None:
        """Checkpoint and generators; in the background, unless what follows needs them on the disk.

        Args:
            meter: ``Meter.state()``, which all processes have to call.

        Raises:
            TrainingFailed: weights are not finite.
            SavingFailed: with ``at_once``, when it could not be written; what was saved before is good.
        """
        what = f"step {progress.step}"
        refuse_not_finite((self.step.networks, self.averaged), f"{what} is not saved")
        if at_once:
            self.saver.now(lambda: self._writing(state_of(self.step, self.averaged, meter), progress), what)
        else:
            self.saver.begin(
                lambda: self._writing(copied(state_of(self.step, self.averaged, meter)), progress), what
            )

    def _writing(self, state: dict[str, Any], progress: Progress) -> Callable[[], None]:
        """The save of this very step, to be called while later ones go on."""
        run, settings, progress = self.run, self.settings, replace(progress)

        def write() -> None:
            if run.metrics.exists():
                flush(run.metrics)  # a checkpoint never knows more than the log
            recorded = self.recorded().model_dump(mode="json")
            save_checkpoint(run.checkpoints, state, progress, recorded, settings.checkpoint)
            export_generators(
                run.generators, self.averaged, settings, self.domain, progress, state["averaged"]
            )

        return write

    def recorded(self) -> TrainSettings:
        """The settings as a run's folder and its checkpoints keep them."""
        asked_here = {"resume": None, "resume_with": (), "run_dir": self.run.folder}
        return self.settings.model_copy(update=asked_here)
