"""What ``cyclegan evaluate`` finds and how it says it."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from cyclegan.artifacts import CONFIG, load_generator, read_config
from cyclegan.artifacts.model_card import add_metrics
from cyclegan.config import DataSettings, TrainSettings, read_yaml, validated
from cyclegan.datasets.domain import Domain, open_domain
from cyclegan.errors import BadInput
from cyclegan.evaluation.evaluate import Figure, evaluate
from cyclegan.networks.inference import inference_device, translate

GENERATORS = {"AtoB": "G_AB", "BtoA": "G_BA"}


@dataclass(frozen=True)
class Report:
    generator: Path
    domain: str
    direction: str
    images: int
    figures: list[Figure]

    def as_json(self) -> dict[str, Any]:
        return {
            "generator": str(self.generator),
            "domain": self.domain,
            "direction": self.direction,
            "images": self.images,
            "metrics": {figure.name: asdict(figure) for figure in self.figures},
        }

    def keep(self) -> None:
        """Beside the generator's weights and in its model card."""
        found = {key: value for key, value in self.as_json().items() if key != "generator"}
        add_metrics(self.generator, read_config(self.generator), found)

    def show(self) -> None:
        table = Table("metric (lower is better)", "translated", "untranslated", "floor")
        for figure in self.figures:
            values = (figure.translated, figure.untranslated, figure.floor)
            table.add_row(figure.name, *(f"{value:.4g}" for value in values))
        print(f"{self.generator}: {self.domain} {self.direction}, {self.images} held-out images")
        Console().print(table)
        print("untranslated: the inputs as they are; floor: real training images of the target, or 0")


def evaluate_folder(path: Path, data: str | None, direction: str | None) -> Report:
    """Judge a saved generator, or a run's, on the held-out images of its domain or of another.

    Raises:
        BadInput: no generator there, or no held-out images to judge it on.
    """
    generator = path if (path / CONFIG).is_file() else path / "generators" / GENERATORS[direction or "AtoB"]
    network, config = load_generator(generator)
    device = inference_device()
    network.to(device)
    if direction not in (None, config.direction):
        raise BadInput(f"{generator}: translates {config.direction}, not {direction}")
    if config.size is None:
        raise BadInput(f"{generator}: does not say its training size; convert it again with --size")
    domain = _domain(generator, config.domain, data)
    sources, targets, train_targets = domain.test_a, domain.test_b, domain.train_b
    if config.direction == "BtoA":
        sources, targets, train_targets = domain.test_b, domain.test_a, domain.train_a
    figures = evaluate(
        lambda images: translate(network, images.to(device), config.multiple_of).cpu(),
        sources,
        targets,
        train_targets,
        config.size,
        config.channels,
        config.background,
        domain.is_paired,
    )
    return Report(generator, domain.name, config.direction, len(sources), figures)


def _domain(generator: Path, trained_on: str, data: str | None) -> Domain:
    """The named domain or folder, else what the run's own settings say, else the generator's domain."""
    if data is not None and Path(data).is_dir():
        return open_domain(TrainSettings(data=DataSettings(root=Path(data))))
    recipe = generator.parent.parent / "config.yaml"
    if data is None and recipe.is_file():
        return open_domain(validated(TrainSettings, read_yaml(recipe), recipe))
    return open_domain(TrainSettings(domain=data or trained_on))
