"""What trackers are told of a run besides its numbers: the data card, samples, what it came to."""

import json

import numpy as np
import torch
from PIL import Image

from cyclegan.artifacts import CONFIG
from cyclegan.config import TrainSettings
from cyclegan.datasets.cards import list_cards
from cyclegan.datasets.domain import Domain
from cyclegan.errors import BadInput
from cyclegan.evaluation.features import vgg19_judge
from cyclegan.evaluation.metrics import perceptual_distance
from cyclegan.images import resize, to_tensor
from cyclegan.reporting.held_out import COLUMNS, Comparison, Distance, held_out_rows, means
from cyclegan.reporting.tracking import Tracking
from cyclegan.training.checkpoint import Progress
from cyclegan.training.run import Run
from cyclegan.training.sampling import Samples

CAPTION = "held-out images: real, fake and, as the method has them, rec and identity"
TABLE_ROWS = 32  # of each direction; pictures make a table heavy


def log_card(tracking: Tracking, domain: Domain) -> None:
    """The data card's file as it is, so that its digest is the one that generators carry."""
    if domain.card is None:
        return
    counts = {split: len(getattr(domain, split)) for split in ("train_a", "train_b", "test_a", "test_b")}
    about = {
        "sha256": domain.digest,
        "licences": domain.licences,
        "attribution": domain.attribution,
        "images": counts,
    }
    tracking.log_card(f"{domain.name}-card", list_cards()[domain.name], about)


def log_samples(tracking: Tracking, samples: Samples, grid: Image.Image, progress: Progress) -> None:
    """The grid, and how far translations lie apart on it."""
    step, seen = progress.step, progress.images_seen
    tracking.log_grid(grid, step, seen, CAPTION)
    found = {f"{direction}/diversity": value for direction, value in samples.diversity.items()}
    tracking.log({**found, "images_seen": seen}, step, "diversity")


def catch_up(tracking: Tracking, run: Run, step: int) -> None:
    """Tell what the log has up to ``step`` and a tracker does not, for the run was broken off in between.

    With this, and because nothing is told twice, no step is there twice and none missing.
    """
    if not tracking.trackers or not run.metrics.exists():
        return
    for line in run.metrics.read_text().splitlines():
        values = json.loads(line)
        number = values.pop("step")
        if number > step:
            break
        tracking.log(values, number)
        grid = run.samples / f"step-{number:08d}.png"
        if grid.exists():
            tracking.log_grid(Image.open(grid), number, values["images_seen"], CAPTION)


def log_results(tracking: Tracking, run: Run, domain: Domain, settings: TrainSettings, step: int) -> None:
    """A table of held-out translations, and the generators."""
    if not settings.trackers:
        return
    data, perceptual = settings.data, _vgg19_distance(settings)
    for name, direction in settings.directions.items():
        sources, truths = (domain.test_a, domain.test_b)[:: 1 if direction == "AtoB" else -1]
        folder = run.folder / "translated" / direction
        comparisons = [
            Comparison(source, folder / source.name, truths[number] if domain.is_paired else None)
            for number, source in enumerate(sources)
            if (folder / source.name).is_file()
        ]
        shown = comparisons[:TABLE_ROWS]
        rows = list(held_out_rows(shown, data.channels, data.background, perceptual))
        if rows:
            tracking.log_table(f"held_out/{direction}", COLUMNS, rows, step)
        generator = run.generator(name)
        about = {**json.loads((generator / CONFIG).read_text()), "held_out": means(rows)}
        tracking.log_generator(f"{domain.name}-{name}", generator, about, step)


def _vgg19_distance(settings: TrainSettings) -> Distance | None:
    """As `cyclegan evaluate` has it, at the training size; None where VGG-19's weights are not installed."""
    try:
        judge = vgg19_judge(torch.device("cpu"))
    except BadInput:
        return None
    size = settings.size

    def distance(x: np.ndarray, y: np.ndarray) -> float:
        seen = (judge.layers(to_tensor(resize(picture, size, size))[None]) for picture in (x, y))
        return float(perceptual_distance(*seen))

    return distance
