"""Training, read from top to bottom: set up, step, log, sample, save, export."""

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import Tensor

from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import Domain, open_domain
from cyclegan.datasets.unpaired import PositionSampler, UnpairedImages, loader, open_stores
from cyclegan.errors import BadInput
from cyclegan.reporting.progress import Standing, TrainingProgress
from cyclegan.reporting.tracking import Tracking
from cyclegan.training.checkpoint import Progress, save_checkpoint, truncate_metrics
from cyclegan.training.ema import update_average
from cyclegan.training.meter import Meter
from cyclegan.training.precision import resolve_precision
from cyclegan.training.run import GENERATORS, Run, export_generators, open_run, write_config
from cyclegan.training.sampling import Samples
from cyclegan.training.schedule import Length, lr_factor, warmup_factor
from cyclegan.training.showcase import translate_held_out
from cyclegan.training.state import restore, state_of
from cyclegan.training.step import CycleGANStep


class TrainingFailed(Exception):
    """The run cannot go on; what was saved before stays good. Exit status 1."""


@dataclass(frozen=True)
class Result:
    """What a finished run leaves behind."""

    run: Run
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
            "generators": {name: str(self.run.generator(name)) for name in GENERATORS},
            "grid": str(self.grid),
            "translated": [str(folder) for folder in self.translated],
            "steps": self.step,
            "images_seen": self.images_seen,
            "minutes": self.minutes,
            "metrics": self.metrics,
        }


class Trainer:
    """The state of one run while it goes on."""

    def __init__(self, settings: TrainSettings) -> None:
        self.settings = settings
        precision = resolve_precision(settings.precision)
        tracker = None if settings.tracker == "none" else settings.tracker
        # Told that there is no GPU, accelerate joins torchrun's processes over gloo; else it does not.
        on_cpu = not torch.accelerator.is_available()
        self.accelerator = Accelerator(cpu=on_cpu, mixed_precision=precision, log_with=tracker)
        _refuse_uneven(settings, self.accelerator.num_processes)
        self.step = CycleGANStep(settings, self.accelerator)
        self.domain, self.dataset = self._open_data()
        self.run: Run = self._agree(lambda: open_run(settings, self.domain.name))
        self.averaged = {name: copy.deepcopy(self.step.networks[name]) for name in GENERATORS}
        self.progress = Progress()
        if self.run.resumed_from is not None:
            self.progress = restore(self.run.resumed_from, self.step, self.averaged)
        self.length = Length(settings, len(self.dataset.stores["A"]))
        self.samples = Samples(self.domain, settings, self.accelerator.device)
        self.tracking = Tracking(self.accelerator, settings.tracker, self.run.folder)
        self.bar = TrainingProgress(self.accelerator.is_main_process)

    def _open_data(self) -> tuple[Domain, UnpairedImages]:
        """One process of a machine fetches and decodes to disk; the others find it done."""
        with self.accelerator.local_main_process_first():
            domain = open_domain(self.settings)
            return domain, UnpairedImages(*open_stores(domain, self.settings), self.settings)

    def _agree(self, decide: Any) -> Any:
        """What the main process decides, on every process."""
        decision = [decide() if self.accelerator.is_main_process else None]
        return broadcast_object_list(decision)[0]

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """This process' share of the global batches, on its device, without end."""
        settings, accelerator = self.settings, self.accelerator
        on_gpu = accelerator.device.type == "cuda"
        workers = settings.data.workers if settings.data.workers is not None else 4 * on_gpu
        sampler = PositionSampler(
            settings.batch_size,
            self.progress.images_seen,
            accelerator.process_index,
            accelerator.num_processes,
            settings.gradient_accumulation,
        )
        for batch in loader(self.dataset, sampler, workers, pin=on_gpu):
            yield {key: value.to(accelerator.device, non_blocking=True) for key, value in batch.items()}

    def train(self) -> Result:
        settings, progress = self.settings, self.progress
        self._begin()
        meter = Meter(self.accelerator, settings.batch_size)
        before, began = progress.minutes, time.monotonic()
        batches = self.batches()
        with self.bar:
            while (done := self.length.done(progress.step, progress.minutes)) < 1:
                parts = [next(batches) for _ in range(settings.gradient_accumulation)]
                factor = self._lr_factor(done)
                meter.add(self.step(parts, factor))
                progress.step += 1
                progress.images_seen += settings.batch_size
                progress.minutes = self._minutes(before + (time.monotonic() - began) / 60)
                for name, average in self.averaged.items():
                    update_average(average, self.step.networks[name], settings.ema_decay, progress.step)
                self._after_step(meter, factor)
            grid, translated = self._finish()
        upload = self.tracking.finish()
        return Result(
            run=self.run,
            grid=grid,
            step=progress.step,
            images_seen=progress.images_seen,
            minutes=progress.minutes,
            metrics=meter.last,
            translated=translated,
            upload=upload,
            is_main=self.accelerator.is_main_process,
        )

    def _lr_factor(self, done: float) -> float:
        """Pre-training is at the full rate; each of the two phases warms up on its own."""
        step, first = self.progress.step, self.settings.pretrain.steps
        adam = self.settings.optimizer
        if step < first:
            return warmup_factor(adam, step)
        return warmup_factor(adam, step - first) * lr_factor(adam, self.length.after(first, done))

    def _begin(self) -> None:
        run, settings = self.run, self.settings
        if self.accelerator.is_main_process:
            write_config(run, settings.model_copy(update={"resume": None, "run_dir": run.folder}))
            truncate_metrics(run.metrics, self.progress.step)
        config = settings.model_dump(mode="json")
        config["precision_used"] = self.accelerator.mixed_precision
        config["data_card"] = None if self.domain.card is None else self.domain.card.model_dump(mode="json")
        self.progress.tracker_id = self.tracking.start(
            settings.project, f"{self.domain.name}/{run.folder.name}", config, self.progress.tracker_id
        )
        stores = self.dataset.stores
        self.bar.say(
            f"{self.domain.name}: {len(stores['A'])} images of A, {len(stores['B'])} of B, "
            f"{settings.size} px, batch {settings.batch_size}, {_precision_words(self.accelerator)} on "
            f"{self.accelerator.num_processes} x {self.accelerator.device.type}; run folder {run.folder}"
        )
        if self.progress.step:
            self.bar.say(f"Going on from step {self.progress.step} ({self.progress.images_seen} images seen)")

    def _minutes(self, mine: float) -> float:
        """Elapsed time; where it decides the end, all processes go by the main one's clock."""
        if self.settings.minutes is None or self.accelerator.num_processes == 1:
            return mine
        return self._agree(lambda: mine)

    def _after_step(self, meter: Meter, factor: float) -> None:
        """Show, log, sample and save, each when it is due; the end has a sample and a save of its own."""
        progress, settings = self.progress, self.settings
        done = self.length.done(progress.step, progress.minutes)
        if progress.step % settings.log_every == 0 or done >= 1:
            self._log(meter.summary(), factor)
        left = progress.minutes * 60 * (1 - done) / done if done > 0 else None
        self.bar.show(Standing(progress.step, done, left, meter.images_per_s, meter.last))
        if done < 1 and self.accelerator.is_main_process:
            if progress.step % settings.samples.every == 0:
                self._sample()
            if progress.step % settings.checkpoint.every == 0:
                self._save()

    def _log(self, losses: dict[str, float], factor: float) -> None:
        progress = self.progress
        values = {
            **losses,
            "lr_G": self.step.lr_G * factor,
            "lr_D": self.step.lr_D * factor,
            "epoch": progress.images_seen / len(self.dataset.stores["A"]),
            "images_seen": progress.images_seen,
        }
        self.tracking.log(values, progress.step)
        if self.accelerator.is_main_process:
            with self.run.metrics.open("a") as file:
                file.write(json.dumps({"step": progress.step, **values}) + "\n")
        wrong = [name for name, value in losses.items() if not math.isfinite(value)]
        if wrong:
            raise TrainingFailed(
                f"{', '.join(wrong)} became NaN or infinite before step {progress.step}; what was saved "
                f"in {self.run.checkpoints} is good: resume from it with a lower --optimizer.lr"
            )

    def _sample(self) -> Path:
        grid = self.samples.grid(self.averaged, self.accelerator.autocast())
        path = self.run.samples / f"step-{self.progress.step:08d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        grid.save(path)
        self.tracking.log_grid(grid, self.progress.step)
        return path

    def _save(self) -> None:
        self.samples.set_styles(self.averaged)
        save_checkpoint(
            self.run.checkpoints,
            state_of(self.step, self.averaged),
            self.progress,
            self.settings.checkpoint.keep,
        )
        export_generators(self.run, self.averaged, self.settings, self.domain, self.progress)

    def _finish(self) -> tuple[Path, list[Path]]:
        grid, translated = Path(), []
        if self.accelerator.is_main_process:
            grid = self._sample()
            self._save()
            count = self.settings.samples.translate
            translated = translate_held_out(self.run, self.domain, count, self.bar.say)
        self.accelerator.wait_for_everyone()
        return grid, translated


def train(settings: TrainSettings) -> Result:
    """Train to the end that the settings name.

    Raises:
        BadInput: settings or images that cannot be used; found before the first step.
        TrainingFailed: a loss became NaN or infinite.
    """
    return Trainer(settings).train()


def _refuse_uneven(settings: TrainSettings, processes: int) -> None:
    share = processes * settings.gradient_accumulation
    if settings.batch_size % share:
        raise BadInput(
            f"batch_size: {settings.batch_size} does not divide among {processes} process(es) with "
            f"gradient_accumulation {settings.gradient_accumulation}; take a multiple of {share}"
        )


def _precision_words(accelerator: Accelerator) -> str:
    return {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
