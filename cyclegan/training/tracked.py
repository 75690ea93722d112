"""What trackers are told of a run besides its numbers: the data card, samples, what it came to."""

import json

from PIL import Image

from cyclegan.artifacts import CONFIG
from cyclegan.config import TrainSettings
from cyclegan.datasets.cards import list_cards
from cyclegan.datasets.domain import Domain
from cyclegan.reporting.held_out import COLUMNS, Comparison, held_out_rows, means
from cyclegan.reporting.tracking import Tracking
from cyclegan.training.checkpoint import Progress
from cyclegan.training.run import GENERATORS, Run
from cyclegan.training.sampling import Samples

# Below this share of their inputs' distances translations are one picture in all but name.
COLLAPSED = 0.1
TABLE_ROWS = 32  # of each direction; pictures make a table heavy


def log_card(tracking: Tracking, domain: Domain) -> None:
    """The data card's file as it is, so that its digest is the one that generators carry."""
    if domain.card is None:
        return
    counts = {split: len(getattr(domain, split)) for split in ("train_a", "train_b", "test_a", "test_b")}
    about = {"sha256": domain.digest, "licences": domain.licences, "images": counts}
    tracking.log_card(f"{domain.name}-card", list_cards()[domain.name], about)


def log_samples(tracking: Tracking, samples: Samples, grid: Image.Image, progress: Progress) -> None:
    """The grid, how far translations lie apart on it, and an alert where they no longer do."""
    step, seen = progress.step, progress.images_seen
    tracking.log_grid(grid, step, seen, "real, fake, rec and identity of held-out images; both directions")
    found = {f"{direction}/diversity": value for direction, value in samples.diversity.items()}
    tracking.log({**found, "images_seen": seen}, step, "diversity")
    for direction, value in samples.diversity.items():
        if value < COLLAPSED:
            text = (
                f"{direction}: at step {step} translations lie {value:.3f} of their inputs' distance apart; "
                "the generator draws nearly the same picture for every input"
            )
            tracking.alert(f"Collapse of {direction}", text, step)


def log_results(tracking: Tracking, run: Run, domain: Domain, settings: TrainSettings, step: int) -> None:
    """A table of held-out translations, and both generators."""
    if not settings.trackers:
        return
    data = settings.data
    for name, direction in GENERATORS.items():
        sources, truths = (domain.test_a, domain.test_b)[:: 1 if direction == "AtoB" else -1]
        folder = run.folder / "translated" / direction
        comparisons = [
            Comparison(source, folder / source.name, truths[number] if domain.is_paired else None)
            for number, source in enumerate(sources)
            if (folder / source.name).is_file()
        ]
        rows = list(held_out_rows(comparisons[:TABLE_ROWS], data.channels, data.background))
        if rows:
            tracking.log_table(f"held_out/{direction}", COLUMNS, rows, step)
        generator = run.generator(name)
        about = {**json.loads((generator / CONFIG).read_text()), "held_out": means(rows)}
        tracking.log_generator(f"{domain.name}-{name}", generator, about, step)
