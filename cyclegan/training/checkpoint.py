"""Checkpoints: everything needed to go on exactly, written whole or not at all."""

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from cyclegan.artifacts import new_folder
from cyclegan.errors import BadInput

STATE, PROGRESS = "state.pt", "progress.json"


@dataclass
class Progress:
    """How far a run has come."""

    step: int = 0
    images_seen: int = 0
    minutes: float = 0.0
    tracker_id: str | None = None


def save_checkpoint(folder: Path, state: dict[str, Any], progress: Progress, keep: int) -> Path:
    """Write ``folder/step-00001000`` and remove all but the ``keep`` newest."""
    target = folder / f"step-{progress.step:08d}"
    with new_folder(target) as partial:
        torch.save(state, partial / STATE)
        (partial / PROGRESS).write_text(json.dumps(asdict(progress)) + "\n")
    for old in checkpoints(folder)[:-keep]:
        shutil.rmtree(old)
    return target


def checkpoints(folder: Path) -> list[Path]:
    """All whole checkpoints in a run's ``checkpoints/``, oldest first."""
    return sorted(path for path in folder.glob("step-*") if is_checkpoint(path))


def is_checkpoint(path: Path) -> bool:
    return (path / PROGRESS).is_file()


def read_checkpoint(path: Path, device: torch.device) -> tuple[dict[str, Any], Progress]:
    """State and progress of one checkpoint; no code in it is ever run.

    Raises:
        BadInput: files missing, damaged, or of another kind.
    """
    try:
        progress = Progress(**json.loads((path / PROGRESS).read_text()))
        state = torch.load(path / STATE, map_location=device, weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"{error.filename}: is missing; this checkpoint is not whole") from error
    except Exception as error:  # torch.load raises many kinds on damaged files
        reason = str(error).splitlines()[0]
        raise BadInput(f"{path}: cannot be read ({reason}); resume from an older checkpoint") from error
    return state, progress


def truncate_metrics(path: Path, step: int) -> None:
    """Drop the lines of metrics.jsonl past ``step``; the resumed run writes them anew."""
    if not path.exists():
        return
    lines = path.read_text().splitlines()
    kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= step]
    partial = path.with_suffix(".part")
    partial.write_text("".join(line + "\n" for line in kept))
    partial.replace(path)
    if len(kept) < len(lines):
        print(f"metrics.jsonl: {len(lines) - len(kept)} lines past step {step} dropped", file=sys.stderr)
