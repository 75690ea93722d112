"""A run's folder: where it is, what it was begun with, what it exports."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from cyclegan.artifacts import GeneratorConfig, NetworkConfig, network_arguments, save_generator
from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import Domain
from cyclegan.datasets.scale import Scale
from cyclegan.errors import BadInput
from cyclegan.files import replace_file
from cyclegan.recipes import to_yaml
from cyclegan.training.checkpoint import (
    SUPERSEDED,
    Damaged,
    Progress,
    checkpoints,
    is_checkpoint,
    newest_good,
    set_aside,
    step_of,
    sweep,
    verify,
)
from cyclegan.training.claim import Claim, refuse_what_is_in_the_way
from cyclegan.training.launch import is_of_this_launch
from cyclegan.training.networks import network_settings

RUNS = Path("runs")


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

    @property
    def generators(self) -> Path:
        return self.folder / "generators"

    @property
    def best(self) -> Path:
        return self.generators / "best"

    def generator(self, name: str) -> Path:
        return self.generators / name


def open_run(settings: TrainSettings, domain_name: str, say: Callable[[str], None], claim: Claim) -> Run:
    """A new run's place, or the one to go on with; nothing of a new one is written yet.

    It goes on where ``--resume`` says so, and where this launch of torchrun began the run and starts its
    processes again. Damaged checkpoints, and those newer than the one resumed from, are set aside, once
    ``claim`` has the folder.

    Raises:
        BadInput: nothing to resume, the checkpoint is damaged, or the folder already holds a run,
            another training is at work in it, or a file is in the way.
    """
    place = settings.run_dir or RUNS / domain_name / time.strftime("%Y%m%d-%H%M%S")
    if settings.resume is not None:
        found = find_run(settings)
        if found is None:  # --resume auto, and nothing there
            return _begun(place)
        folder = found.parent.parent if is_checkpoint(found) else found
        claim.take(folder)
        if not is_checkpoint(found):
            return _go_on(found, say, may_begin=settings.resume == "auto")
        if not is_of_this_launch(folder):
            return _go_on_from(found)
        return _go_on(folder, say, may_begin=False)
    places = [settings.run_dir] if settings.run_dir is not None else (RUNS / domain_name).glob("*")
    begun = [folder for folder in places if is_of_this_launch(folder)]
    if begun:
        claim.take(max(begun))
        return _go_on(max(begun), say, may_begin=True)
    if (place / "config.yaml").exists():
        raise BadInput(
            f"{place}: already holds a run; add --resume to go on with it, or name another --run-dir"
        )
    return _begun(place)


def _begun(place: Path) -> Run:
    """A new run's place; it is claimed when the run begins to write."""
    refuse_what_is_in_the_way(place)
    return Run(place)


def _go_on(folder: Path, say: Callable[[str], None], may_begin: bool) -> Run:
    """The run of a folder, from its newest checkpoint that is whole."""
    sweep(folder / "checkpoints")
    sweep(folder / "generators")
    checkpoint = newest_good(folder / "checkpoints", say)
    if checkpoint is None and not may_begin:
        raise BadInput(
            f"{folder}: has no checkpoint to resume from; to begin anew in this folder: --run-dir {folder} "
            "--resume auto"
        )
    if checkpoint is None:
        say(f"{folder}: has no checkpoint yet; the run begins anew")
    return Run(folder, checkpoint)


def _go_on_from(checkpoint: Path) -> Run:
    """The run of one certain checkpoint."""
    folder = checkpoint.parent.parent
    try:
        verify(checkpoint)
    except Damaged as error:
        raise BadInput(
            f"{checkpoint}: {error}; resume from the newest good one: --resume {folder}"
        ) from error
    sweep(folder / "checkpoints")
    sweep(folder / "generators")
    for newer in checkpoints(folder / "checkpoints"):
        if step_of(newer) > step_of(checkpoint):
            # Else they would count as the newest, and what is saved from here on as old.
            set_aside(newer, SUPERSEDED)
    return Run(folder, checkpoint)


def find_run(settings: TrainSettings) -> Path | None:
    """The run's folder that ``--resume`` means, or the checkpoint if it names one; looks at names only.

    ``latest`` is ``--run-dir``, else the newest of the domain's runs, else of all runs; a path is a run's
    folder or a checkpoint's. ``auto`` is ``--run-dir``, and None if no run is there.

    Raises:
        BadInput: there is none.
    """
    word = settings.resume
    if word == "auto":
        if settings.run_dir is None:
            raise BadInput("resume: 'auto' goes on with --run-dir, or begins there; name it")
        return settings.run_dir if (settings.run_dir / "config.yaml").is_file() else None
    if word == "latest" and settings.run_dir is None:
        runs = RUNS.glob(f"{settings.domain or '*'}/*")
    else:
        path = Path(str(word)) if word != "latest" else settings.run_dir
        if is_checkpoint(path):
            return path
        runs = [path]
    found = [run for run in runs if (run / "config.yaml").is_file() and checkpoints(run / "checkpoints")]
    if not found:
        where = settings.run_dir or (RUNS if word == "latest" else word)
        raise BadInput(f"{where}: has no checkpoint to resume from; train without --resume")
    return max(found, key=lambda run: (run / "config.yaml").stat().st_mtime)


def write_config(run: Run, settings: TrainSettings) -> None:
    try:
        replace_file(run.folder / "config.yaml", to_yaml(settings).encode(), lasting=True)
    except OSError as error:
        raise BadInput(
            f"{run.folder}: cannot be written ({error.strerror}); name another --run-dir"
        ) from error


def export_generators(
    folder: Path,
    networks: Mapping[str, nn.Module],
    settings: TrainSettings,
    domain: Domain,
    progress: Progress,
    states: Mapping[str, dict[str, Tensor]] | None = None,
) -> None:
    """Write ``folder/G_AB`` and, where it is trained, ``folder/G_BA`` as artifacts.

    ``states`` are their weights where training goes on meanwhile; else the networks' own are taken.
    """
    titles = {"A": "A", "B": "B"}
    if domain.card is not None:
        titles = {"A": domain.card.a.title, "B": domain.card.b.title}
    chosen, given = network_settings(settings, "generator")
    for name, direction in settings.directions.items():
        network = networks[name]
        arguments = network_arguments(network, given)
        config = GeneratorConfig(
            network=NetworkConfig(name=chosen, arguments=arguments),
            channels=settings.data.channels,
            size=settings.size,
            multiple_of=network.multiple_of,
            background=settings.data.background,
            scale=Scale.of(settings),
            domain=domain.name,
            direction=direction,
            method=settings.method,
            source=titles[direction[0]],
            target=titles[direction[-1]],
            card_sha256=domain.digest,
            licences=domain.licences,
            attribution=domain.attribution,
            seed=settings.seed,
            steps=progress.step,
            images_seen=progress.images_seen,
        )
        state = network.state_dict() if states is None else states[name]
        save_generator(folder / name, state, config)
