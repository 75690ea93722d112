"""about.json: what only the training process knows and a run's folder has to keep, as the data card."""

import datetime
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from pydantic import Field, ValidationError

from cyclegan import __version__
from cyclegan.config import Frozen
from cyclegan.datasets.cards import Card
from cyclegan.datasets.domain import Domain
from cyclegan.errors import BadInput
from cyclegan.files import replace_file
from cyclegan.recipes import explain, project_files, read_yaml

ABOUT = "about.json"
PACKAGES = ("torch", "torchvision", "accelerate", "albumentations", "numpy", "pillow")


class Recipe(Frozen):
    """The recipe as it was when the run began; it may change later."""

    name: str
    values: dict[str, Any]


class About(Frozen):
    """The data, the machine and how far the run has come; times are UTC in ISO 8601."""

    format: Literal["cyclegan-run/1"] = "cyclegan-run/1"
    domain: str
    card: Card | None
    card_sha256: str | None
    licences: dict[str, str]
    attribution: dict[str, str] = Field({})
    required_licences: tuple[str, ...] = ()
    counts: dict[str, int]
    paired: bool
    recipe: Recipe | None
    machine: dict[str, str]
    versions: dict[str, str]
    began: str
    updated: str
    ended: str | None = None
    minutes: float = 0.0
    done: float = 0.0


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def begin_about(folder: Path, domain: Domain, processes: int, precision: str) -> About:
    """What is known before the first step; a run that goes on keeps the time at which it began."""
    counts = {
        "trainA": len(domain.train_a),
        "trainB": len(domain.train_b),
        "testA": len(domain.test_a),
        "testB": len(domain.test_b),
    }
    before = read_about(folder)
    return About(
        domain=domain.name,
        card=domain.card,
        card_sha256=domain.digest,
        licences=domain.licences,
        attribution=domain.attribution,
        required_licences=domain.clearance.required if domain.clearance else (),
        counts=counts,
        paired=domain.is_paired,
        recipe=recipe_of(domain.name) if before is None else before.recipe,
        machine=machine(processes, precision),
        versions=versions(),
        began=now() if before is None else before.began,
        updated=now(),
    )


def recipe_of(domain: str) -> Recipe | None:
    """``experiments/<domain>.yaml``, if there is one."""
    path = project_files("experiments").get(domain)
    return None if path is None else Recipe(name=path.stem, values=read_yaml(path))


def write_about(folder: Path, about: About) -> None:
    replace_file(folder / ABOUT, (about.model_dump_json(indent=2) + "\n").encode())


def read_about(folder: Path) -> About | None:
    """What the run says of itself; None for one begun before such files were written.

    Raises:
        BadInput: the file is there and does not hold.
    """
    path = folder / ABOUT
    if not path.is_file():
        return None
    try:
        return About.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BadInput(f"{path}: {explain(error, About)}") from error


def machine(processes: int, precision: str) -> dict[str, str]:
    """The hardware in words that say nothing of whose it is: no host name, user or path."""
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows do not say which cores a process may use
        cores = os.cpu_count() or 1
    found = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "accelerator": "none",
        "processes": str(processes),
        "precision": {"no": "fp32"}.get(precision, precision),
    }
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        found["accelerator"] = ", ".join(f"{names.count(name)} x {name}" for name in sorted(set(names)))
    elif torch.accelerator.is_available():
        found["accelerator"] = str(torch.accelerator.current_accelerator())
    return found


def _processor() -> str:
    """The model's name; ``platform`` does not have it on Linux."""
    path = Path("/proc/cpuinfo")
    if path.is_file():
        for line in path.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown processor"


def versions() -> dict[str, str]:
    found = {"cyclegan": __version__, "Python": ".".join(map(str, sys.version_info[:3]))}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # unpacked by hand, without its metadata
            found[package] = "unknown"
    return found
