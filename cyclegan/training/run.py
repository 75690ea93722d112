"""A run's folder: where it is, what it was begun with, what it exports."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from cyclegan.artifacts import GeneratorConfig, NetworkConfig, network_arguments, save_generator
from cyclegan.config import TrainSettings, to_yaml
from cyclegan.datasets.domain import Domain
from cyclegan.errors import BadInput
from cyclegan.images import replace_file
from cyclegan.training.checkpoint import Progress, checkpoints, is_checkpoint
from cyclegan.training.step import network_settings

RUNS = Path("runs")
GENERATORS = {"G_AB": "AtoB", "G_BA": "BtoA"}


@dataclass(frozen=True)
class Run:
    """The folder of one run and the checkpoint that it goes on from, if it does."""

    folder: Path
    resumed_from: Path | None = None

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def samples(self) -> Path:
        return self.folder / "samples"

    @property
    def metrics(self) -> Path:
        return self.folder / "metrics.jsonl"

    def generator(self, name: str) -> Path:
        return self.folder / "generators" / name


def open_run(settings: TrainSettings, domain_name: str) -> Run:
    """A new run's place, or the one that ``--resume`` names; writes nothing yet.

    Raises:
        BadInput: nothing to resume, or the folder already holds a run.
    """
    if settings.resume is not None:
        checkpoint = find_checkpoint(settings)
        return Run(checkpoint.parent.parent, checkpoint)
    folder = settings.run_dir or RUNS / domain_name / time.strftime("%Y%m%d-%H%M%S")
    if (folder / "config.yaml").exists():
        raise BadInput(
            f"{folder}: already holds a run; add --resume to go on with it, or name another --run-dir"
        )
    return Run(folder)


def find_checkpoint(settings: TrainSettings) -> Path:
    """The checkpoint that ``--resume`` means.

    ``latest`` is the newest of ``--run-dir``, else of the domain's runs, else of all runs; a path is a
    run's folder or a checkpoint's.

    Raises:
        BadInput: there is none.
    """
    if settings.resume != "latest":
        path = Path(str(settings.resume))
        if is_checkpoint(path):
            return path
        runs = [path]
    elif settings.run_dir is not None:
        runs = [settings.run_dir]
    else:
        runs = sorted(RUNS.glob(f"{settings.domain or '*'}/*"))
    found = [path for run in runs for path in checkpoints(run / "checkpoints")]
    if not found:
        where = settings.run_dir or (RUNS if settings.resume == "latest" else settings.resume)
        raise BadInput(f"{where}: has no checkpoint to resume from; train without --resume")
    return max(found, key=lambda path: path.stat().st_mtime)


def write_config(run: Run, settings: TrainSettings) -> None:
    try:
        replace_file(run.folder / "config.yaml", to_yaml(settings).encode())
    except OSError as error:
        raise BadInput(
            f"{run.folder}: cannot be written ({error.strerror}); name another --run-dir"
        ) from error


def export_generators(
    run: Run, networks: Mapping[str, nn.Module], settings: TrainSettings, domain: Domain, progress: Progress
) -> None:
    """Write ``generators/G_AB`` and ``generators/G_BA`` as artifacts."""
    titles = {"A": "A", "B": "B"}
    if domain.card is not None:
        titles = {"A": domain.card.a.title, "B": domain.card.b.title}
    chosen, given = network_settings(settings, "generator")
    for name, direction in GENERATORS.items():
        network = networks[name]
        arguments = network_arguments(network, given)
        config = GeneratorConfig(
            network=NetworkConfig(name=chosen, arguments=arguments),
            channels=settings.data.channels,
            size=settings.size,
            multiple_of=network.multiple_of,
            background=settings.data.background,
            domain=domain.name,
            direction=direction,
            source=titles[direction[0]],
            target=titles[direction[-1]],
            card_sha256=domain.digest,
            licences=domain.licences,
            seed=settings.seed,
            steps=progress.step,
            images_seen=progress.images_seen,
        )
        save_generator(run.generator(name), network.state_dict(), config)
