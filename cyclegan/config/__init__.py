"""Typed settings: what a recipe in experiments/ and the command line can say, each default once."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from cyclegan.config.idle import idle_settings
from cyclegan.config.parts import (
    LARGEST_SIZE,
    AugmentSettings,
    CheckpointSettings,
    DataSettings,
    DiscriminatorSettings,
    EvaluationSettings,
    Frozen,
    GeneratorSettings,
    LossSettings,
    NceSettings,
    NumbersSettings,
    OptimizerSettings,
    PresetName,
    PretrainSettings,
    SampleSettings,
    SpeedSettings,
    TrackingSettings,
)

__all__ = [
    "LARGEST_SIZE",
    "AugmentSettings",
    "CheckpointSettings",
    "DataSettings",
    "DiscriminatorSettings",
    "EvaluationSettings",
    "GeneratorSettings",
    "LossSettings",
    "NceSettings",
    "NumbersSettings",
    "OptimizerSettings",
    "PresetName",
    "PretrainSettings",
    "SampleSettings",
    "SpeedSettings",
    "TrackingSettings",
    "TrainSettings",
]


class TrainSettings(Frozen):
    """All settings of a run; the first ones are those that people change most."""

    domain: str | None = Field(None, description="name of a card in data/, or of your own data")
    steps: int | None = Field(None, ge=1, description="end after so many steps")
    epochs: float | None = Field(
        None,
        gt=0,
        description="end after so many walks over all of A; default, if no other end is set: 200, of cut 400",
    )
    images: int | None = Field(None, ge=1, description="end after so many images of A")
    minutes: float | None = Field(None, gt=0, description="end after so many minutes")
    batch_size: int | Literal["auto"] = Field(
        1, description="images of A in a step, over all processes; auto: as many as fit into memory"
    )
    method: Literal["cyclegan", "cut", "fastcut"] = Field(
        "cyclegan", description="cyclegan: both ways, by cycles; cut and fastcut: A to B alone, by patches"
    )
    size: int = Field(256, ge=16, le=8192, description="height and width of training images")
    precision: Literal["auto", "no", "fp16", "bf16"] = Field(
        "auto", description="auto: bf16 or fp16 where the hardware is fast at it, else fp32 (no)"
    )
    seed: int = Field(0, ge=0, description="the same seed gives the same run")
    tracker: str = Field(
        "wandb", description="where curves and grids go: wandb, tensorboard, trackio, mlflow, ...; or none"
    )
    run_dir: Path | None = Field(None, description="the run's folder; default runs/<domain>/<date-time>")
    resume: str | None = Field(
        None,
        description="go on with the newest run ('latest'), or a run or checkpoint folder; 'auto': with "
        "--run-dir, or begin there",
    )
    resume_with: tuple[str, ...] = Field(
        (), description="key=value: settings that are meant to differ from the checkpoint's"
    )
    timeout_minutes: float = Field(
        30.0, gt=0, description="how long processes wait for one that does not answer"
    )
    gradient_accumulation: int = Field(1, ge=1, description="parts in which a step's batch is computed")
    pool_size: int | None = Field(
        None, ge=0, description="fakes in each image pool, 0: none; default 50 for cyclegan, else none"
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="of the averaged generators; 0 turns them off")
    log_every: int = Field(50, ge=1, description="steps between two lines of metrics.jsonl")
    project: str = Field("cyclegan", description="project in the tracker")
    require_license: str | None = Field(
        None, description="SPDX identifiers, comma-separated; pictures under anything else are refused"
    )
    data: DataSettings = DataSettings()
    augment: AugmentSettings = AugmentSettings()
    generator: GeneratorSettings = GeneratorSettings()
    discriminator: DiscriminatorSettings = DiscriminatorSettings()
    losses: LossSettings = LossSettings()
    nce: NceSettings = NceSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    pretrain: PretrainSettings = PretrainSettings()
    samples: SampleSettings = SampleSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    numbers: NumbersSettings = NumbersSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: TrackingSettings = TrackingSettings()
    speed: SpeedSettings = SpeedSettings()

    @field_validator("tracker", "require_license", mode="before")
    @classmethod
    def _one_line(cls, value: Any) -> Any:
        """A recipe may list several; they are kept as the command line spells them."""
        return ",".join(map(str, value)) if isinstance(value, list | tuple) else value

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers' names, each once; empty for ``none``."""
        names = tuple(dict.fromkeys(name.strip() for name in self.tracker.split(",")))
        return () if names == ("none",) else names

    @property
    def directions(self) -> dict[str, str]:
        """The generators that are trained, each with its direction."""
        both = {"G_AB": "AtoB", "G_BA": "BtoA"}
        return both if self.method == "cyclegan" else {"G_AB": "AtoB"}

    @property
    def pooled(self) -> int:
        """Fakes in each image pool; CUT goes without, as its authors train it."""
        if self.pool_size is None:
            return 50 if self.method == "cyclegan" else 0
        return self.pool_size

    @property
    def load_size(self) -> int:
        """Size before the random crop; the paper's 286 for 256, in proportion."""
        return self.augment.load_size or round(self.size * 286 / 256)

    @property
    def has_batch_norm(self) -> bool:
        return "batch" in (self.generator.norm, self.discriminator.norm)

    @property
    def idle(self) -> dict[str, str]:
        """Settings that are given and have no part in the run, each with the reason."""
        parts = (self.losses, self.nce, self.pretrain, self.optimizer)
        return dict(idle_settings(self.method, *parts, self.generator.style == "reference"))

    @property
    def remarks(self) -> list[str]:
        """Lines that a run begins with: settings that are taken as given, and may not be meant so."""
        lines = [f"{setting} has no part in this run: {why}" for setting, why in self.idle.items()]
        if self.gradient_accumulation > 1 and self.has_batch_norm:
            lines.append("norm batch takes its statistics of each part of gradient_accumulation by itself")
        steps = None if self.steps is None else max(0, self.steps - self.pretrain.steps)
        if steps is not None and self.optimizer.warmup_steps > steps:
            warmup = f"optimizer.warmup_steps is {self.optimizer.warmup_steps}"
            lines.append(f"{warmup}, so that these {steps} steps end below the full rate")
        return lines

    @model_validator(mode="after")
    def _refuse_clashes(self) -> "TrainSettings":
        for clash, message in self._clashes():
            if clash:
                raise ValueError(message)
        return self

    def _clashes(self) -> Iterator[tuple[bool, str]]:
        data, augment = self.data, self.augment
        yield (data.a is None) != (data.b is None), "data.a and data.b go together; one of them is missing"
        yield (
            data.root is not None and data.a is not None,
            "data.root and data.a clash; give the folder with trainA and trainB, or two folders, not both",
        )
        yield (
            augment.load_size is not None and augment.load_size < self.size,
            f"augment.load_size ({augment.load_size}) is smaller than size ({self.size}); "
            f"set it to {self.size} or more",
        )
        yield (
            augment.load_size is not None and augment.preset in ("crop", "resize"),
            f"augment.load_size has no meaning with augment.preset {augment.preset!r}",
        )
        yield (
            self.speed.recompute and self.method != "cyclegan",
            f"speed.recompute and method {self.method!r} clash: features inside the generator are part of "
            "its loss, and must be kept",
        )
        yield (
            self.speed.cuda_graphs and not self.speed.compile,
            "speed.cuda_graphs records what is compiled; set speed.compile too",
        )
        losses = self.losses
        yield (
            losses.lambda_style == 0 and (losses.style_picture_a or losses.style_picture_b) is not None,
            "losses.style_picture_a and style_picture_b need a weight; set losses.lambda_style",
        )
        yield (
            losses.style_picture_a is not None and "G_BA" not in self.directions,
            f"losses.style_picture_a has no meaning with method {self.method!r}, which translates to B alone",
        )
        yield (
            losses.lambda_consist > 0 and losses.consist_size > self.size,
            f"losses.consist_size ({losses.consist_size}) is larger than size ({self.size}); "
            f"set it to {self.size} or less",
        )
        first = self.pretrain.steps
        yield (
            first > 0 and self.pretrain.patch >= self.size,
            f"pretrain.patch ({self.pretrain.patch}) masks all of a picture or nothing at size {self.size}; "
            f"set it to {max(1, self.size // 8)}",
        )
        detail = self.discriminator.detail or 0
        yield (
            math.ceil(2 * detail) >= self.size,
            f"discriminator.detail ({detail:g}) must be less than half of size ({self.size})",
        )
        yield (
            self.evaluation.early_stop > 0 and self.evaluation.every == 0,
            "evaluation.early_stop needs evaluations; set evaluation.every",
        )
        if self.batch_size == "auto":
            return
        yield (
            self.batch_size < 1,
            f"batch_size: input should be greater than or equal to 1, not {self.batch_size}",
        )
        yield (
            self.batch_size % self.gradient_accumulation != 0,
            f"batch_size ({self.batch_size}) does not divide by "
            f"gradient_accumulation ({self.gradient_accumulation}); set batch_size to a multiple of it",
        )
