"""cyclegan train."""

import os
import shlex
import shutil
import sys
from pathlib import Path

from cyclegan.arguments import print_json


def train(args: list[str]) -> int:
    from cyclegan.training.command import settings_from

    settings, options = settings_from(args)
    if options.dry_run:
        from cyclegan.recipes import to_yaml

        if options.json:
            print_json(settings.model_dump(mode="json"))
        else:
            print(to_yaml(settings), end="")
        return 0
    from cyclegan.allocation import keep_freed_memory
    from cyclegan.training.launch import is_spokesman
    from cyclegan.training.outcome import TrainingStopped
    from cyclegan.training.signals import STOPPED_STATUS
    from cyclegan.training.train import train as run_training

    keep_freed_memory()
    try:
        result = run_training(settings)
    except TrainingStopped as stopped:
        if is_spokesman():
            print(f"cyclegan train: {stopped}", file=sys.stderr)
        return STOPPED_STATUS
    if not result.is_main:
        return 0
    if options.json:
        print_json(result.summary())
        return 0
    print(f"Done: {result.step:,} steps, {result.images_seen:,} images in {result.minutes:.1f} minutes.")
    if result.upload is not None:
        print(f"W&B has not all of the run; what is kept here is uploaded by: {result.upload}")
    for folder in result.translated:
        print(f"Held-out images, translated: {folder}")
    print(f"Grid: {result.grid}")
    command = (*_program(), "translate", str(result.run.generator("G_AB")), "INPUT", "OUTPUT")
    print(f"Translate a folder: {shlex.join(command)}")
    return 0


def _program() -> list[str]:
    """How this command can be called from here."""
    if shutil.which("cyclegan"):
        return ["cyclegan"]
    beside = Path(sys.executable).with_name("cyclegan")
    return [os.path.relpath(beside)] if beside.exists() else [sys.executable, "-m", "cyclegan"]
