"""Checkpoints: everything needed to go on exactly, written whole or not at all, checked before use."""

import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cyclegan.artifacts import new_folder
from cyclegan.config import CheckpointSettings
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.files import replace_file

STATE, PROGRESS, SETTINGS, MANIFEST = "state.pt", "progress.json", "settings.json", "manifest.json"
BEST = "best.json"
FORMAT = "cyclegan-checkpoint/1"
DAMAGED, SUPERSEDED = "damaged", "superseded"


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    images_seen: int = 0
    minutes: float = 0.0
    pretraining_minutes: float = 0.0
    tracker_id: str | None = None
    pictures: dict[str, tuple[int, str]] | None = None  # as pictures.py has them
    rights: dict[str, dict[str, str]] | None = None  # licences and attribution of all that were learned from
    earlier: dict[str, dict[str, str]] | None = None  # the part of it that is of pictures of before these


class Damaged(Exception):
    """A checkpoint's files are not those that were written; the message names the first one."""


def save_checkpoint(
    folder: Path,
    state: dict[str, Any],
    progress: Progress,
    settings: dict[str, Any],
    keep: CheckpointSettings,
) -> Path:
    """Write ``folder/step-00001000``, then remove those that ``keep`` does not name.

    ``settings`` is what the run goes by, for a later resume to compare with its own.

    Raises:
        OSError: it could not be written; the ones before are as they were.
    """
    target = folder / f"step-{progress.step:08d}"
    with new_folder(target) as partial:
        torch.save(state, partial / STATE)
        (partial / PROGRESS).write_text(json.dumps(asdict(progress)) + "\n")
        (partial / SETTINGS).write_text(json.dumps(settings, indent=1) + "\n")
        files = {
            name: {"bytes": (partial / name).stat().st_size, "sha256": sha256_of(partial / name)}
            for name in (STATE, PROGRESS, SETTINGS)
        }
        manifest = {"format": FORMAT, "files": files}
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    _thin_out(folder, keep)
    return target


def _thin_out(folder: Path, keep: CheckpointSettings) -> None:
    """The newest, the best and every Nth stay."""
    best = best_step(folder)
    for old in checkpoints(folder)[: -keep.keep]:
        step = step_of(old)
        if step == best or (keep.keep_every is not None and step % keep.keep_every == 0):
            continue
        # By a name that nobody resumes from, for a removal can be broken off half-way.
        leaving = old.with_name(f".{old.name}.old")
        old.rename(leaving)
        shutil.rmtree(leaving)


def mark_best(folder: Path, step: int, metric: str, value: float) -> None:
    """Note in ``folder`` that the checkpoint of ``step`` is the best by ``metric``; it then stays.

    The one marked before goes when it is neither new enough nor one of every Nth.
    """
    note = {"step": step, "metric": metric, "value": value}
    replace_file(folder / BEST, (json.dumps(note) + "\n").encode(), lasting=True)


def best_step(folder: Path) -> int | None:
    """The step that ``mark_best`` noted last, if any."""
    try:
        return json.loads((folder / BEST).read_text())["step"]
    except FileNotFoundError:
        return None


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("step-"))


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints in a run's ``checkpoints/``, oldest first; damaged ones that nobody noticed as well."""
    return sorted((path for path in folder.glob("step-*") if is_checkpoint(path)), key=step_of)


def is_checkpoint(path: Path) -> bool:
    return path.is_dir() and re.fullmatch(r"step-\d+", path.name) is not None


def verify(path: Path) -> None:
    """Compare a checkpoint's files with its manifest, sizes and digests.

    Raises:
        Damaged: one is missing, cut short or altered.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files = {name: (entry["bytes"], entry["sha256"]) for name, entry in manifest["files"].items()}
    except FileNotFoundError as error:
        raise Damaged(f"{MANIFEST} is missing") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(f"{MANIFEST} cannot be read") from error
    if manifest.get("format") != FORMAT:
        raise BadInput(f"{path}: is of the kind {manifest.get('format')!r}, this program reads {FORMAT!r}")
    for name in (STATE, PROGRESS, SETTINGS):
        if name not in files:
            raise Damaged(f"{MANIFEST} does not name {name}")
    for name, (size, digest) in files.items():
        file = path / Path(name).name  # a name that leads elsewhere is not followed
        try:
            found = file.stat().st_size
            if found != size:
                raise Damaged(f"{name} has {found} bytes, {size} were written")
            if sha256_of(file) != digest:
                raise Damaged(f"{name} is not what was written, by its SHA-256")
        except OSError as error:
            raise Damaged(f"{name} cannot be read ({error.strerror})") from error


def newest_good(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint that is as it was written; newer ones that are not are set aside."""
    for path in reversed(checkpoints(folder)):
        try:
            verify(path)
            return path
        except Damaged as error:
            aside = set_aside(path, DAMAGED)
            say(f"{path}: {error}; set aside as {aside.name}, the checkpoint before it is used")
    return None


def set_aside(path: Path, why: str) -> Path:
    """Give a checkpoint a name that nobody resumes from; nothing is removed."""
    aside = path.with_name(f"{why}-{path.name}")
    number = 1
    while aside.exists():
        number += 1
        aside = path.with_name(f"{why}-{path.name}-{number}")
    return path.rename(aside)


def sweep(folder: Path) -> None:
    """Remove what saves that were killed left; a folder caught between two renames gets its name back."""
    for old in sorted(folder.glob(".*.old")):
        target = old.with_name(re.sub(r"^\.(.+?)(\.\d+)?\.old$", r"\1", old.name))
        # A checkpoint on its way out has no process' number in its name; it was to go.
        if re.search(r"\.\d+\.old$", old.name) and not target.exists():
            old.rename(target)
        else:
            shutil.rmtree(old)
    for partial in folder.glob(".*.part"):
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()


def read_checkpoint(path: Path) -> tuple[dict[str, Any], Progress]:
    """State, on the CPU, and progress of a checkpoint that ``verify`` passed; no code in it is ever run.

    Raises:
        BadInput: what was written cannot be read back, as by another version of torch.
    """
    try:
        progress = Progress(**json.loads((path / PROGRESS).read_text()))
        state = torch.load(path / STATE, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path}: cannot be read ({reason}); resume from an older checkpoint") from error
    return state, progress


def read_settings(path: Path) -> dict[str, Any]:
    """The settings that a checkpoint was made with, as JSON has them."""
    return json.loads((path / SETTINGS).read_text())


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, oldest first; one that was cut short is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def cut_back(path: Path, step: int) -> None:
    """Drop the lines past ``step`` of a run's log; the run that goes on from there writes them anew."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    replace_file(path, "".join(line + "\n" for line in kept).encode(), lasting=True)
    if len(kept) < len(lines):
        print(f"{path.name}: {len(lines) - len(kept)} lines past step {step} dropped", file=sys.stderr)
