"""Several runs side by side: what was set, what it cost, and their figures on the same held-out images."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cyclegan.artifacts import GeneratorConfig, load_generator
from cyclegan.config import TrainSettings
from cyclegan.datasets.domain import Domain, spread
from cyclegan.errors import BadInput
from cyclegan.evaluation.command import GENERATORS, domain_of, on_device
from cyclegan.evaluation.evaluate import Judge, Translate
from cyclegan.evaluation.figures import NOTE
from cyclegan.evaluation.held_out import HeldOut, held_out
from cyclegan.networks.inference import inference_device
from cyclegan.recipes import read_yaml, validated

FORMAT = "cyclegan-comparison/1"
# Where a run lies and where it went on from says nothing of what it is.
_NO_SETTINGS = ("run_dir", "resume")

Column = tuple[str, Tensor]


@dataclass(frozen=True)
class Comparison:
    """``facts`` are ready for JSON; ``grids`` have, by direction, columns of the same pictures."""

    facts: dict[str, Any]
    grids: dict[str, list[Column]]


def compare_runs(
    folders: Sequence[Path],
    data: str | None,
    direction: str | None,
    best: bool,
    images: int,
    count: int,
) -> Comparison:
    """Judge the runs' generators anew, by one judge on the same images.

    Args:
        folders: of the runs.
        direction: only this one; None for those that all of the runs translate.
        data: a domain's name or folder to judge on; None for the domain that all of them have.
        best: take ``generators/best`` in place of the last generators.
        images: held-out images that are judged, at most.
        count: pictures in the grids.

    Raises:
        BadInput: a folder holds no run, or the runs are of different domains and ``data`` names none.
    """
    runs = [_facts(folder, name) for folder, name in zip(folders, _names(folders), strict=True)]
    settings = [run.pop("settings") for run in runs]
    differing = _differing(settings)
    sets: dict[str, Judge] = {}
    grids: dict[str, list[Column]] = {}
    domain: Domain | None = None
    directions = _shared(folders, best) if direction is None else (direction,)
    for number, (folder, run) in enumerate(zip(folders, runs, strict=True), 1):
        run["settings"] = {key: settings[number - 1].get(key) for key in differing}
        run["figures"] = {}
        for way in directions:
            generator = _generators(folder, best) / GENERATORS[way]
            network, config = load_generator(generator)
            run["steps"], run["images_seen"] = config.steps, config.images_seen
            domain = domain or domain_of(generator, config.domain, data)
            if data is None and config.domain != domain.name:
                raise BadInput(
                    f"{folder}: is of the domain {config.domain}, {folders[0]} of {domain.name}; compare "
                    "runs of one domain, or name what they are all to be judged on with --data"
                )
            judge = _judge(sets, domain, config, images)
            translate = on_device(judge.device, network, config)
            figures = judge(translate)
            run["figures"][way] = {
                "images": len(judge.data.sources),
                "size": judge.data.size,
                "metrics": {figure.name: figure.as_json() for figure in figures},
            }
            columns = grids.setdefault(way, _inputs(judge.data, config, count))
            columns.append((f"run {number}", _column(judge.data, translate, count)))
    facts = {"format": FORMAT, "data": domain.name if domain else None, "best": best, "note": NOTE}
    return Comparison({**facts, "settings_that_differ": differing, "runs": runs}, grids)


def _generators(folder: Path, best: bool) -> Path:
    return folder / "generators" / ("best" if best else "")


def _shared(folders: Sequence[Path], best: bool) -> list[str]:
    """The directions of all runs; both if there is none, so that what lacks is named."""
    found = [
        direction
        for direction, name in GENERATORS.items()
        if all((_generators(folder, best) / name).is_dir() for folder in folders)
    ]
    return found or list(GENERATORS)


def _judge(judges: dict[str, Judge], domain: Domain, config: GeneratorConfig, images: int) -> Judge:
    """One for all generators that see the same images at the same size."""
    if config.size is None:
        raise BadInput("a generator does not say its training size; compare runs that were trained here")
    data = held_out(domain, config.direction, config.size, config.channels, config.background, images)
    key = f"{config.direction} {config.size} {config.channels} {config.background}"
    if key not in judges:
        judges[key] = Judge(data, inference_device(), closely=False)
    return judges[key]


def _facts(folder: Path, name: str) -> dict[str, Any]:
    """What a run's folder says of it: settings, time, speed.

    Raises:
        BadInput: there is no run.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise BadInput(f"{folder}: has no config.yaml; name the folders of runs, as runs/DOMAIN/RUN")
    settings = validated(TrainSettings, read_yaml(path), path)
    progress = [json.loads(p.read_text()) for p in folder.glob("checkpoints/step-*/progress.json")]
    last = max(progress, key=lambda p: p["step"], default={})
    metrics = folder / "metrics.jsonl"
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    speeds = [json.loads(line).get("images_per_s") for line in lines if line.endswith("}")]
    known = torch.tensor([speed for speed in speeds if speed], dtype=torch.float64)
    return {
        "name": name,
        "run": str(folder),
        "minutes": last.get("minutes"),
        # The median: now and then the log's interval holds a grid, an evaluation, a checkpoint.
        "images_per_s": float(known.median()) if len(known) else None,
        "settings": _flat(settings.model_dump(mode="json")),
    }


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' own names, or their paths where two are alike."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


def _differing(settings: Sequence[dict[str, Any]]) -> list[str]:
    keys = dict.fromkeys(key for each in settings for key in each if key not in _NO_SETTINGS)
    return [key for key in keys if any(each.get(key) != settings[0].get(key) for each in settings)]


def _inputs(data: HeldOut, config: GeneratorConfig, count: int) -> list[Column]:
    columns = [(f"real_{config.direction[0].lower()}", data.read(spread(data.sources, count)))]
    if data.paired:
        columns.append((f"true {config.direction[-1].lower()}", data.read(spread(data.targets, count))))
    return columns


def _column(data: HeldOut, translate: Translate, count: int) -> Tensor:
    return translate(data.read(spread(data.sources, count)))
