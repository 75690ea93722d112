"""What ``cyclegan evaluate`` finds and how it says it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from cyclegan.artifacts import CONFIG, GeneratorConfig, load_generator, read_config
from cyclegan.artifacts.model_card import METRICS_FORMAT, add_metrics
from cyclegan.config import DataSettings, TrainSettings
from cyclegan.datasets.domain import Domain, open_domain
from cyclegan.datasets.duplicates import describe, of_domain
from cyclegan.errors import BadInput, shown
from cyclegan.evaluation.evaluate import Judge
from cyclegan.evaluation.figures import NOTE, Figure
from cyclegan.evaluation.held_out import held_out
from cyclegan.networks.inference import inference_device, translate
from cyclegan.recipes import read_yaml, validated

GENERATORS = {"AtoB": "G_AB", "BtoA": "G_BA"}
_ARROWS = {"lower": "↓", "higher": "↑", "neither": " "}


@dataclass(frozen=True)
class Report:
    """The figures of one generator in one direction."""

    generator: Path
    domain: str
    direction: str
    images: int
    figures: Sequence[Figure]

    def as_json(self) -> dict[str, Any]:
        return {
            "format": METRICS_FORMAT,
            "generator": str(self.generator),
            "domain": self.domain,
            "direction": self.direction,
            "images": self.images,
            "metrics": {figure.name: figure.as_json() for figure in self.figures},
        }

    def keep(self) -> None:
        """Beside the generator's weights and in its model card."""
        found = {key: value for key, value in self.as_json().items() if key != "generator"}
        add_metrics(self.generator, read_config(self.generator), found)

    def show(self) -> None:
        table = Table("metric", "translated", "95 % interval", "inputs", "target's train", "best")
        for figure in self.figures:
            low_high = "" if figure.interval is None else "{:.4g} to {:.4g}".format(*figure.interval)
            values = (f"{v:.4g}" for v in (figure.inputs, figure.target_train))
            best = "" if figure.meaning.best is None else f"{figure.meaning.best:g}"
            name = f"{_ARROWS[figure.meaning.better]} {figure.name}"
            table.add_row(name, f"{figure.value:.4g}", low_high, *values, best)
        print(f"{self.generator}: {self.domain} {self.direction}, {self.images} held-out images")
        # As wide as its longest line: a table that is cut says nothing.
        Console(width=max(100, Console().width)).print(table)
        print("inputs: the untranslated inputs in the translations' place; target's train: real training")
        print("images of the target in their place. ↓ lower is better, ↑ higher.")
        print(NOTE)
        for figure in self.figures:
            if figure.closest is not None:
                print(
                    "Nearest to a training image: {input}, to {train}, {distance:.3g}".format(
                        **figure.closest
                    )
                )


def evaluate_folder(
    path: Path,
    data: str | None,
    direction: str | None,
    networks: Sequence[str] = ("vgg19",),
    images: int | None = None,
) -> Report:
    """Judge a saved generator, or a run's, on the held-out images of its domain or of another.

    Raises:
        BadInput: no generator there, no held-out images to judge it on, or no weights to judge by.
    """
    generator = find_generator(path, direction)
    network, config = load_generator(generator)
    if direction not in (None, config.direction):
        raise BadInput(f"{generator}: translates {config.direction}, not {direction}")
    if config.size is None:
        raise BadInput(f"{generator}: does not say its training size; convert it again with --size")
    domain = domain_of(generator, config.domain, data)
    if twins := of_domain(domain):
        print(shown(f"Warning: {describe(twins)}"), file=sys.stderr)
    device = inference_device()
    chosen = held_out(domain, config.direction, config.size, config.channels, config.background, images)
    judge = Judge(chosen, device, networks)
    figures = judge(on_device(device, network, config), _back(device, generator, config))
    return Report(generator, domain.name, config.direction, len(chosen.sources), figures)


def find_generator(path: Path, direction: str | None) -> Path:
    """A generator's folder as it is; of a run's folder, or of its ``generators/best``, the one wanted."""
    name = GENERATORS[direction or "AtoB"]
    for candidate in (path, path / name):
        if (candidate / CONFIG).is_file():
            return candidate
    return path / "generators" / name


def on_device(
    device: torch.device, network: nn.Module, config: GeneratorConfig
) -> Callable[[Tensor], Tensor]:
    """``network`` as a function of images of any size, on the CPU before and after."""
    network.to(device)
    return lambda images: translate(network, images.to(device), config.multiple_of).float().cpu()


def _back(
    device: torch.device, generator: Path, config: GeneratorConfig
) -> Callable[[Tensor], Tensor] | None:
    """The other generator of the same training, which lies beside this one."""
    other = generator.resolve().parent / GENERATORS["BtoA" if config.direction == "AtoB" else "AtoB"]
    if not (other / CONFIG).is_file():
        return None
    network, theirs = load_generator(other)
    alike = (theirs.domain, theirs.channels, theirs.steps) == (config.domain, config.channels, config.steps)
    return on_device(device, network, theirs) if alike and theirs.direction != config.direction else None


def domain_of(generator: Path, trained_on: str, data: str | None) -> Domain:
    """The named domain or folder, else what the run's own settings say, else the generator's domain."""
    if data is not None and Path(data).is_dir():
        return open_domain(TrainSettings(data=DataSettings(root=Path(data))))
    # RUN/generators/G_AB, or RUN/generators/best/G_AB
    recipes = [folder / "config.yaml" for folder in generator.resolve().parents[1:3]]
    recipe = next((path for path in recipes if path.is_file()), None)
    if data is None and recipe is not None:
        return open_domain(validated(TrainSettings, read_yaml(recipe), recipe))
    return open_domain(TrainSettings(domain=data or trained_on))
