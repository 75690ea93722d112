"""Training, read from top to bottom: set up, step, log, sample, save, export."""

import copy
import functools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from cyclegan.config import TrainSettings
from cyclegan.datasets.clearing import ask_card, cleared, spelled
from cyclegan.datasets.domain import Domain, open_domain
from cyclegan.datasets.duplicates import describe, of_domain
from cyclegan.datasets.unpaired import PositionSampler, UnpairedImages, loader, on_device, open_stores
from cyclegan.errors import BadInput, shown
from cyclegan.reporting.grids import save_grid
from cyclegan.reporting.progress import Standing, TrainingProgress
from cyclegan.reporting.trackers import check_trackers
from cyclegan.reporting.tracking import Tracking
from cyclegan.training.batch_size import settle_batch_size
from cyclegan.training.calibration import calibrate
from cyclegan.training.chance_state import begin_random_states
from cyclegan.training.changes import check_changes, check_pretraining, with_meant
from cyclegan.training.checkpoint import Progress, cut_back, mark_best, read_log, read_settings
from cyclegan.training.claim import Claim
from cyclegan.training.ema import update_average
from cyclegan.training.gradients import gradient_norms
from cyclegan.training.group import decided_by_main, join_group
from cyclegan.training.judging import Judging
from cyclegan.training.keeping import Keeper
from cyclegan.training.launch import note_launch
from cyclegan.training.meter import Meter
from cyclegan.training.outcome import Result, TrainingFailed, TrainingStopped
from cyclegan.training.pictures import Pictures, changed, note, pictures_of, with_earlier
from cyclegan.training.precision import resolve_precision, set_up_cuda
from cyclegan.training.record import Record
from cyclegan.training.recovery import Recovery
from cyclegan.training.run import Run, open_run, write_config
from cyclegan.training.sampling import Samples
from cyclegan.training.saving import Saver, SavingFailed
from cyclegan.training.schedule import Length, lr_factor, warmup_factor
from cyclegan.training.showcase import translate_held_out
from cyclegan.training.signals import StopRequest, deaf_to_stop_requests
from cyclegan.training.state import restore
from cyclegan.training.step import TrainingStep
from cyclegan.training.tracked import catch_up, log_card, log_results, log_samples
from cyclegan.training.watch import Watch


class Trainer:
    """The state of one run while it goes on."""

    def __init__(self, settings: TrainSettings, claim: Claim | None = None) -> None:
        self.claim = claim or Claim()
        self.settings = settings = spelled(with_meant(settings))
        check_trackers(settings.trackers)
        precision = resolve_precision(settings.precision)
        # Told that there is no GPU, accelerate joins torchrun's processes over gloo; else it does not.
        on_cpu = not torch.accelerator.is_available()
        timeout = timedelta(minutes=settings.timeout_minutes)
        join_group(timeout)
        self.accelerator = Accelerator(
            cpu=on_cpu,
            mixed_precision=precision,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timeout)],
        )
        set_up_cuda(settings.speed)
        self.settings = settings = settle_batch_size(settings, self.accelerator)
        _refuse_uneven(settings, self.accelerator.num_processes)
        self.step = TrainingStep(settings, self.accelerator)
        self.domain, self.dataset = self._open_data()
        self.length = Length(settings, len(self.dataset.stores["A"]))
        _refuse_pretraining_alone(settings, self.length)
        self.bar = TrainingProgress(self.accelerator.is_main_process)
        self.run: Run = decided_by_main(
            self.accelerator, lambda: open_run(settings, self.domain.name, self.bar.say, self.claim)
        )
        calibrate(self.step.networks, self.dataset, self.accelerator.device)
        self.averaged = {name: copy.deepcopy(self.step.networks[name]) for name in self.step.directions}
        self.progress, random_states = Progress(), None
        self.meter = Meter(self.accelerator, settings.batch_size)
        if self.run.resumed_from is not None:
            self.progress, random_states = self._restore(self.run.resumed_from, self.bar.say)
            self.domain = decided_by_main(
                self.accelerator,
                lambda: with_earlier(self.domain, self.progress, self._pictures, settings.require_license),
            )
        self._learn_styles()
        self.samples = Samples(self.domain, settings, self.accelerator.device)
        self.tracking = Tracking(self.accelerator, settings, self.run.folder)
        self.random_states = random_states
        self.saver = Saver(self.bar.say)
        self.keeper = Keeper(self.run, settings, self.domain, self.step, self.averaged, self.saver)
        self.stop = StopRequest(self.accelerator, timeout)
        self.recovery = Recovery(
            settings, self.run, self.progress, self.accelerator, self._warn, self.saver.wait
        )
        self.watch = Watch(settings, self._warn, getattr(self.step.networks["D_B"], "scales", 1))
        is_main, device = self.accelerator.is_main_process, self.accelerator.device
        self.record: Record | None = None  # of the main process, once its folder is there
        self.judging = Judging(settings, self.domain, self.run, device, self.bar.say, is_main)

    def _open_data(self) -> tuple[Domain, UnpairedImages]:
        """One process of a machine fetches and decodes to disk; the others find it done."""
        with self.accelerator.local_main_process_first():
            ask_card(self.settings)
            domain = open_domain(self.settings)
        named = self.settings.require_license, self.settings.losses.style_pictures
        if any(named):
            domain = decided_by_main(self.accelerator, lambda: cleared(domain, *named))
        with self.accelerator.local_main_process_first():
            stores = open_stores(domain, self.settings, shared=self.accelerator.num_processes > 1)
            return domain, UnpairedImages(*stores, self.settings)

    def batches(self) -> Iterator[dict[str, Tensor]]:
        """This process' share of the global batches, on its device, without end."""
        settings, accelerator = self.settings, self.accelerator
        on_gpu = accelerator.device.type == "cuda"
        workers = settings.data.workers if settings.data.workers is not None else 4 * on_gpu
        sampler = PositionSampler(
            settings.batch_size,
            self.progress.images_seen + self.recovery.shift,
            accelerator.process_index,
            accelerator.num_processes,
            settings.gradient_accumulation,
        )
        for batch in loader(self.dataset, sampler, workers, on_gpu, deaf_to_stop_requests):
            yield on_device(batch, accelerator.device)

    def train(self) -> Result:
        settings, progress = self.settings, self.progress
        self._begin()
        begin_random_states(settings.seed, self.random_states)
        meter = self.meter
        before, began = progress.minutes, time.monotonic()
        batches = self.batches()
        with self.bar, self.stop, self.saver:
            while (done := self.length.done(progress.step, progress.minutes)) < 1 and not self.stopped:
                parts = [next(batches) for _ in range(settings.gradient_accumulation)]
                factor = self._lr_factor(done) * self.recovery.rate
                losses, wrong = self.step(parts, factor), self.step.guard.wrong
                if self.recovery.after(wrong, parts, self.dataset, self._put_back):
                    batches = self.batches()
                    continue
                if not wrong:
                    meter.add(losses)
                progress.step += 1
                progress.images_seen += settings.batch_size
                progress.minutes = self._minutes(before + (time.monotonic() - began) / 60)
                if progress.step <= settings.pretrain.steps:
                    progress.pretraining_minutes = progress.minutes
                for name, average in self.averaged.items():
                    update_average(average, self.step.networks[name], settings.ema_decay, progress.step)
                self._after_step(meter, factor)
                self._stop_if_asked()
            grid, translated = self._finish()
        upload = self.tracking.finish()
        return Result(
            run=self.run,
            directions=self.step.directions,
            grid=grid,
            step=progress.step,
            images_seen=progress.images_seen,
            minutes=progress.minutes,
            metrics=meter.last,
            translated=translated,
            upload=upload,
            is_main=self.accelerator.is_main_process,
        )

    def _restore(self, checkpoint: Path, say: Callable[[str], None]) -> tuple[Progress, dict[str, Any]]:
        """Put back what holds under today's settings; the checkpoint may have been made with others."""
        then = read_settings(checkpoint)
        changed = check_changes(self.settings, then, say)
        found = restore(checkpoint, self.step, self.averaged, self.meter, changed)
        check_pretraining(self.settings, then, found[0].step)
        if "discriminator.detail" in changed:
            calibrate(self.step.networks, self.dataset, self.accelerator.device)
        return found

    def _learn_styles(self) -> None:
        self.step.learn_styles({side: store.paths for side, store in self.dataset.stores.items()})

    def _put_back(self, checkpoint: Path) -> Progress:
        progress, _ = self._restore(checkpoint, lambda said: None)  # it was said when the run went on
        note(progress, self._pictures, self.domain)
        self._learn_styles()
        self.judging.rewind(progress.step)
        return progress

    def _lr_factor(self, done: float) -> float:
        """Pre-training is at the full rate; each of the two phases warms up on its own."""
        step, first = self.progress.step, self.settings.pretrain.steps
        adam = self.settings.optimizer
        if step < first:
            return warmup_factor(adam, step)
        done = self.length.after(first, self.progress.pretraining_minutes, done)
        return warmup_factor(adam, step - first) * lr_factor(adam, done)

    @functools.cached_property
    def _pictures(self) -> Pictures:
        return pictures_of(self.dataset.stores, self.settings.losses.style_pictures)

    def _begin(self) -> None:
        run, settings = self.run, self.settings
        if self.accelerator.is_main_process:
            self.claim.take(run.folder)
            write_config(run, self.keeper.recorded())
            note_launch(run.folder)
            cut_back(run.metrics, self.progress.step)
            self.record = Record(run.folder, self.domain, self.accelerator, self.bar.say, self.progress.step)
            self.watch.go_on(read_log(run.metrics), self.record.titles)
            self.record.update(self.progress, self.length.done(self.progress.step, self.progress.minutes))
        config = settings.model_dump(mode="json")
        config["precision_used"] = self.accelerator.mixed_precision
        config["data_card"] = None if self.domain.card is None else self.domain.card.model_dump(mode="json")
        config["data_card_sha256"] = self.domain.digest
        self.progress.tracker_id = self.tracking.start(
            f"{self.domain.name}/{run.folder.name}", config, self.progress.step, self.progress.tracker_id
        )
        log_card(self.tracking, self.domain)
        if run.resumed_from is not None:
            catch_up(self.tracking, run, self.progress.step)
        stores = self.dataset.stores
        if self.accelerator.is_main_process:
            if twins := of_domain(self.domain):
                self._warn("Twins", shown(describe(twins)))
            if words := changed(self.progress.pictures, self._pictures):
                self._warn("Pictures", words)
            note(self.progress, self._pictures, self.domain)
        for remark in settings.remarks:
            self.bar.say(remark)
        self.bar.say(
            f"{self.domain.name}: {len(stores['A'])} images of A, {len(stores['B'])} of B, "
            f"{settings.size} px, batch {settings.batch_size}, {_precision_words(self.accelerator)} on "
            f"{self.accelerator.num_processes} x {self.accelerator.device.type}; run folder {run.folder}"
        )
        if self.progress.step:
            self.bar.say(f"Going on from step {self.progress.step} ({self.progress.images_seen} images seen)")
        if self.accelerator.is_main_process:
            self.judging.begin(self.averaged, self.progress)
        self.stopped = decided_by_main(self.accelerator, lambda: self.judging.stops)

    def _warn(self, title: str, text: str, step: int | None = None) -> None:
        """Something that whoever watches the run should know: said here and to the trackers."""
        step = self.progress.step if step is None else step
        self.bar.say(f"Warning: {text}")
        if self.record is not None:
            self.record.warn(step, title, text)
        self.tracking.alert(title, text, step)

    def abandon(self, reason: str) -> None:
        """Close the trackers of a run that ends with an error."""
        if reason:
            self.tracking.alert("The run ended", reason, self.progress.step)
            if self.record is not None:
                self.record.warn(self.progress.step, "The run ended", reason)
        self.tracking.abandon()

    def _minutes(self, mine: float) -> float:
        """Elapsed time; where it decides the end, all processes go by the main one's clock."""
        if self.settings.minutes is None or self.accelerator.num_processes == 1:
            return mine
        return decided_by_main(self.accelerator, lambda: mine)

    def _after_step(self, meter: Meter, factor: float) -> None:
        """Show, log, sample and save, each when it is due; the end has a sample and a save of its own."""
        progress, settings = self.progress, self.settings
        done = self.length.done(progress.step, progress.minutes)
        if progress.step % settings.log_every == 0 or done >= 1:
            self._log(meter.summary(), factor)
        left = progress.minutes * 60 * (1 - done) / done if done > 0 else None
        self.bar.show(Standing(progress.step, done, left, meter.images_per_s, meter.last))
        if done >= 1:
            return
        is_main = self.accelerator.is_main_process
        samples = progress.step % settings.samples.every == 0
        saves = progress.step % settings.checkpoint.every == 0 and not self.step.guard.wrong
        judges = self.judging.due(progress.step)
        if samples and is_main:
            self._sample()
        if saves or judges:
            losses = self.meter.state()
            if is_main:
                is_best = judges and self._judge(losses)  # which saves a new best
                if saves and not is_best:
                    self._keep(losses)
        if self.record is not None and (samples or saves or judges):
            self.record.update(progress, done)
        if self.judging.may_stop(progress.step):
            self.stopped = decided_by_main(self.accelerator, lambda: self.judging.stops)
            if self.stopped and progress.step % settings.log_every:
                self._log(meter.summary(), factor)  # the last step, as at any other end

    def _log(self, losses: dict[str, float], factor: float) -> None:
        progress = self.progress
        self.watch.losses(losses, progress.step)
        values = {
            **losses,
            **gradient_norms(self.step),
            "lr_G": self.step.lr_G * factor,
            "lr_D": self.step.lr_D * factor,
            "epoch": progress.images_seen / len(self.dataset.stores["A"]),
            "images_seen": progress.images_seen,
        }
        self.tracking.log(values, progress.step)
        if self.accelerator.is_main_process:
            with self.run.metrics.open("a") as file:
                file.write(json.dumps({"step": progress.step, **values}) + "\n")

    def _sample(self) -> Path:
        grid = self.samples.grid(self.averaged, self.accelerator.autocast())
        for direction, images in self.samples.translated.items():
            self.watch.outputs(direction, *images, self.progress.step)
        path = self.run.samples / f"step-{self.progress.step:08d}.png"
        save_grid(grid, path)
        log_samples(self.tracking, self.samples, grid, self.progress)
        return path

    def _save(self, at_once: bool = False) -> None:
        """All processes must call it; the main one writes."""
        losses = self.meter.state()
        if not self.accelerator.is_main_process:
            return
        try:
            self._keep(losses, at_once)
        except SavingFailed as error:
            kept = f"what was saved before in {self.run.checkpoints} is good"
            raise TrainingFailed(f"{error}; {kept}") from error

    def _keep(self, losses: Mapping[str, Any], at_once: bool = False) -> None:
        self.samples.set_styles(self.averaged)
        self.keeper.save(self.progress, losses, at_once)

    def _judge(self, losses: Mapping[str, Any] | None = None) -> bool:
        """Judge both generators; a new best is saved, with ``losses``, unless the run's end has been."""

        def save(metric: str, value: float) -> bool:
            try:
                if losses is not None:
                    self._keep(losses, at_once=True)
            except SavingFailed as error:
                self.bar.say(f"{error}; it would have been the best so far; training goes on")
                return False
            mark_best(self.run.checkpoints, self.progress.step, metric, value)
            return True

        self.samples.set_styles(self.averaged)
        is_best, lines = self.judging.judge(self.averaged, self.progress, save)
        for line in lines:
            self.tracking.log_evaluation(line, self.progress.step)
        return is_best

    def _stop_if_asked(self) -> None:
        """Leave between two steps, saved, where a signal asks for it; retry a save that failed."""
        every = self.settings.checkpoint.every
        soon = self.progress.step % max(1, every // 10) == 0
        asked, retry = self.stop.exchange(self.saver.failed and soon)
        if self.length.done(self.progress.step, self.progress.minutes) >= 1:
            return  # the end saves too
        if asked is not None:
            self._save(at_once=True)
            self.accelerator.wait_for_everyone()
            self.tracking.finish()
            raise TrainingStopped(
                f"stopped by {asked.name} after step {self.progress.step}; all is saved; go on with: "
                f"--resume {self.run.folder}"
            )
        if retry and self.progress.step % every:
            self._save()

    def _finish(self) -> tuple[Path, list[Path]]:
        grid, translated = Path(), []
        # Pictures of many shapes follow; to try convolutions for each takes longer than they do.
        set_up_cuda(self.settings.speed.model_copy(update={"autotune": False}))
        self._save(at_once=True)
        if self.accelerator.is_main_process:
            grid = self._sample()
            if 0 < self.progress.step <= self.settings.pretrain.steps:
                words = "its generators complete masked pictures, and translate nothing"
                self._warn("Pre-training", f"the run ended within pretrain.steps: {words}")
            self._judge()
            self.judging.keep_last(self.progress)
            count = self.settings.samples.translate
            generators = self.step.directions
            translated = translate_held_out(self.run, generators, self.domain, count, self.bar.say)
            log_results(self.tracking, self.run, self.domain, settings=self.settings, step=self.progress.step)
            if self.record is not None:
                self.record.update(self.progress, 1.0, ended=True)
        self.accelerator.wait_for_everyone()
        return grid, translated


def _refuse_pretraining_alone(settings: TrainSettings, length: Length) -> None:
    first = settings.pretrain.steps
    if length.steps is not None and 0 < length.steps <= first:
        raise BadInput(
            f"pretrain.steps ({first}) are part of the run's {length.steps} steps, and leave none for "
            "translation; set steps, images or epochs to more"
        )


def _refuse_uneven(settings: TrainSettings, processes: int) -> None:
    share = processes * settings.gradient_accumulation
    if settings.batch_size % share:
        raise BadInput(
            f"batch_size: {settings.batch_size} does not divide among {processes} process(es) with "
            f"gradient_accumulation {settings.gradient_accumulation}; take a multiple of {share}"
        )


def _precision_words(accelerator: Accelerator) -> str:
    return {"no": "fp32"}.get(accelerator.mixed_precision, accelerator.mixed_precision)
