"""Evaluation while training: figures every N steps, the best generators, and when to stop early.

All that it decides is read from ``evaluations.jsonl``, so that a resumed run decides as the run never
stopped. It draws nothing by chance, and what it does has no effect on the next step.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cyclegan.artifacts import CONFIG, new_folder, read_config
from cyclegan.artifacts.model_card import METRICS_FORMAT, add_metrics
from cyclegan.config import EvaluationSettings, TrainSettings
from cyclegan.datasets.domain import Domain
from cyclegan.errors import BadInput, nearest
from cyclegan.evaluation.evaluate import Judge
from cyclegan.evaluation.figures import MEANINGS, metric_names
from cyclegan.evaluation.held_out import held_out
from cyclegan.files import replace_file
from cyclegan.training.checkpoint import Progress, read_log
from cyclegan.training.run import Run, export_generators

EVALUATIONS = "evaluations.jsonl"

Line = Mapping[str, Any]
Networks = Mapping[str, nn.Module]


def scores(lines: Sequence[Line], best_by: str) -> dict[int, float]:
    """By step, the metric's mean over the run's directions, turned so that lower is better."""
    sign = -1 if MEANINGS[best_by].better == "higher" else 1
    directions = {line["direction"] for line in lines}
    by_step: dict[int, list[float]] = {}
    for line in lines:
        if best_by in line["metrics"]:
            by_step.setdefault(line["step"], []).append(sign * line["metrics"][best_by]["value"])
    means = {step: sum(v) / len(v) for step, v in by_step.items() if len(v) == len(directions)}
    return {step: mean for step, mean in means.items() if math.isfinite(mean)}


def best_step(lines: Sequence[Line], best_by: str) -> int | None:
    """The step with the best figures, the earliest of equal ones; None before the first evaluation."""
    found = scores(lines, best_by)
    return min(found, key=lambda step: (found[step], step), default=None)


def stops_early(lines: Sequence[Line], settings: EvaluationSettings) -> bool:
    """Whether so many evaluations as ``early_stop`` says came after the best one."""
    best = best_step(lines, settings.best_by)
    since = sum(step > best for step in scores(lines, settings.best_by)) if best is not None else 0
    return 0 < settings.early_stop <= since


class Judging:
    """Judges the averaged generators of one run; of several processes, the main one does.

    Raises:
        BadInput: ``best_by`` names no metric that these settings give, or nothing can be judged while the
            settings ask for more than the defaults do.
    """

    def __init__(
        self,
        settings: TrainSettings,
        domain: Domain,
        run: Run,
        device: torch.device,
        say: Callable[[str], None],
        is_main: bool,
    ) -> None:
        self.settings, self.chosen, self.domain, self.run = settings, settings.evaluation, domain, run
        self.device, self.say = device, say
        self.path = run.folder / EVALUATIONS
        self.active = self.chosen.every > 0
        self.judges: dict[str, Judge] = {}
        self.lines: list[dict[str, Any]] = []
        if self.active:
            _refuse_unknown(self.chosen, domain.is_paired)
            if is_main:
                self._open_judges()

    def _open_judges(self) -> None:
        settings, chosen = self.settings, self.chosen
        size, channels, background = settings.size, settings.data.channels, settings.data.background
        try:
            for direction in settings.directions.values():
                data = held_out(self.domain, direction, size, channels, background, chosen.images)
                self.judges[direction] = Judge(data, self.device, chosen.networks, closely=False)
        except BadInput as error:
            if chosen != EvaluationSettings(every=chosen.every, images=chosen.images):
                raise
            self._give_up(error)

    def begin(self, averaged: Networks, progress: Progress) -> None:
        """On a resumed run, drop what came after the checkpoint and fill in what lacks."""
        if not self.active:
            return
        self.lines = read_log(self.path)
        self.rewind(progress.step)
        self._mend_best(averaged, progress)
        if progress.step and self.due(progress.step):
            self.judge(averaged, progress, save=lambda *_: True)
        if self.stops:
            self.say("This run stopped early before; to go on, set --evaluation.early-stop 0")

    def rewind(self, step: int) -> None:
        """Forget what came after ``step``: the run goes on from there."""
        kept = [line for line in self.lines if line["step"] <= step]
        if len(kept) < len(self.lines):
            self.lines = kept
            self._write()

    def due(self, step: int) -> bool:
        """Whether it is the step for it, by the settings alone: every process gets the same answer.

        What still completes masked pictures is neither judged nor can it be the best.
        """
        return self.chosen.every > 0 and step % self.chosen.every == 0 and step > self.settings.pretrain.steps

    def may_stop(self, step: int) -> bool:
        """Whether the processes are to agree on stopping; by the settings alone, so that all ask at once."""
        return self.chosen.early_stop > 0 and self.due(step)

    @property
    def stops(self) -> bool:
        return self.active and stops_early(self.lines, self.chosen)

    def judge(
        self, averaged: Networks, progress: Progress, save: Callable[[str, float], bool]
    ) -> tuple[bool, list[dict[str, Any]]]:
        """Judge the generators, unless this step has been, or is pre-training, and keep the best so far.

        Args:
            save: given the metric and its mean, writes a checkpoint and says whether it did; called for a
                new best before anything says that it is one, so that a run is never resumed from before
                its best.

        Returns:
            Whether they are the best, and the lines that were written, one for each direction.
        """
        completes = progress.step <= self.settings.pretrain.steps
        if not self.active or completes or any(line["step"] == progress.step for line in self.lines):
            return False, []
        try:
            new = [
                self._line(averaged, direction, progress) for direction in self.settings.directions.values()
            ]
        except BadInput as error:
            self._give_up(error)
            return False, []
        before = scores(self.lines, self.chosen.best_by).get(self._stored() or -1)
        score = scores(new, self.chosen.best_by).get(progress.step)
        is_best = score is not None and (before is None or score < before)
        if is_best:
            values = [line["metrics"][self.chosen.best_by]["value"] for line in new]
            is_best = save(self.chosen.best_by, sum(values) / len(values))
        self.lines += new
        self._write()
        if is_best:
            self._keep_best(averaged, progress)
        self._report(new, is_best)
        return is_best, new

    def keep_last(self, progress: Progress) -> None:
        """The figures of the run's end, beside its last generators and in their cards."""
        self._add_metrics(self.run.generators, progress.step)

    def _line(self, averaged: Networks, direction: str, progress: Progress) -> dict[str, Any]:
        name = next(name for name, its in self.settings.directions.items() if its == direction)
        network = averaged[name].eval()

        @torch.inference_mode()
        def translate(images: Tensor) -> Tensor:
            return network(images.to(self.device)).float().cpu()

        judge = self.judges[direction]
        return {
            "step": progress.step,
            "images_seen": progress.images_seen,
            "direction": direction,
            "images": len(judge.data.sources),
            "metrics": {figure.name: figure.as_json() for figure in judge(translate)},
        }

    def _write(self) -> None:
        text = "".join(json.dumps(line) + "\n" for line in self.lines)
        replace_file(self.path, text.encode(), lasting=True)

    def _stored(self) -> int | None:
        """The step of the generators that ``generators/best`` holds."""
        folder = self.run.best / next(iter(self.settings.directions))
        return read_config(folder).steps if (folder / CONFIG).is_file() else None

    def _mend_best(self, averaged: Networks, progress: Progress) -> None:
        """What a power cut or an older checkpoint left in ``generators/best`` is put right."""
        stored = self._stored()
        if stored is not None and stored > progress.step:
            shutil.rmtree(self.run.best)
            self.say(f"{self.run.best}: was of step {stored}, past this checkpoint; the best is sought anew")
        elif best_step(self.lines, self.chosen.best_by) == progress.step != stored:
            self._keep_best(averaged, progress)

    def _keep_best(self, averaged: Networks, progress: Progress) -> None:
        with new_folder(self.run.best) as partial:
            export_generators(partial, averaged, self.settings, self.domain, progress)
            self._add_metrics(partial, progress.step)

    def _add_metrics(self, folder: Path, step: int) -> None:
        names = {direction: name for name, direction in self.settings.directions.items()}
        for line in self.lines:
            if line["step"] == step:
                generator = folder / names[line["direction"]]
                facts = {"format": METRICS_FORMAT, "domain": self.domain.name}
                found = facts | {key: line[key] for key in ("direction", "images", "metrics")}
                add_metrics(generator, read_config(generator), found)

    def _report(self, lines: Sequence[Line], is_best: bool) -> None:
        name = self.chosen.best_by
        parts = [
            "{direction} {value:.4g} (inputs {inputs:.4g}, target's train {target_train:.4g})".format(
                direction=line["direction"], **line["metrics"][name]
            )
            for line in lines
        ]
        best = "; the best so far" if is_best else ""
        self.say(f"step {lines[0]['step']}: {name} {', '.join(parts)}{best}")
        if self.stops:
            self.say(f"No better in {self.chosen.early_stop} evaluations: the run ends here")

    def _give_up(self, error: BadInput) -> None:
        """A night of training is worth more than its figures."""
        self.active = False
        self.say(f"No evaluation while training: {error}")


def _refuse_unknown(chosen: EvaluationSettings, paired: bool) -> None:
    given = metric_names(chosen.networks, paired, closely=False, both_ways=False)
    known = [name for name in given if MEANINGS[name].better != "neither"]
    if chosen.best_by not in known:
        raise BadInput(
            f"evaluation.best_by: {chosen.best_by!r} is no metric to choose by here"
            f"{nearest(chosen.best_by, known)} (there are {', '.join(known)})"
        )
