"""Trackers, through accelerate; W&B is kept offline where there is no account."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from PIL import Image

from cyclegan.reporting.offline_runs import last_offline_step, offline_folders


def wandb_mode() -> str:
    """What WANDB_MODE says, else ``online`` where an account is known and ``offline`` where none is."""
    if os.environ.get("WANDB_MODE"):
        return os.environ["WANDB_MODE"]
    import wandb

    # Looks for a key where wandb keeps one; asks neither the user nor the network.
    return "online" if wandb.login(prompt=False, verify=False) else "offline"


class Tracking:
    """Sends numbers and grids to the chosen tracker; with ``none`` it does nothing at all."""

    def __init__(self, accelerator: Accelerator, name: str, folder: Path) -> None:
        self.accelerator, self.name, self.folder = accelerator, name, folder
        self.last_known = -1  # steps up to here W&B has from before a resume

    def start(self, project: str, run_name: str, config: Mapping[str, Any], run_id: str | None) -> str | None:
        """Begin the run, or go on with ``run_id``; returns the run's id."""
        if self.name == "none":
            return None
        options: dict[str, Any] = {"dir": str(self.folder), "mode": wandb_mode(), "name": run_name}
        options["settings"] = {"silent": True, "console": "off"}
        if run_id is not None:
            options |= {"id": run_id, "resume": "allow"}
        self.accelerator.init_trackers(project, dict(config), {"wandb": options})
        if not self.accelerator.is_main_process:
            return None
        run = self.accelerator.get_tracker("wandb", unwrap=True)
        run.define_metric("images_seen")
        run.define_metric("*", step_metric="images_seen")
        if run_id is not None:
            last = last_offline_step(self.folder, run_id) if run.offline else run.starting_step - 1
            self.last_known = last
        return run.id

    def catch_up(self, metrics: Path, samples: Path, step: int) -> None:
        """Send what was logged up to ``step`` and did not reach W&B before the run was broken off.

        With this, and because ``log`` keeps to itself what W&B has, no step is there twice and none missing.
        """
        if self.name == "none":
            return
        for line in metrics.read_text().splitlines() if metrics.exists() else ():
            values = json.loads(line)
            number = values.pop("step")
            if self.last_known < number <= step:
                self.log(values, number)
                grid = samples / f"step-{number:08d}.png"
                if grid.exists():
                    self.log_grid(Image.open(grid), number)
        self.last_known = max(self.last_known, step)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if step > self.last_known:
            self.accelerator.log(dict(values), step=step)

    def log_grid(self, grid: Image.Image, step: int) -> None:
        if self.name == "wandb" and self.accelerator.is_main_process and step > self.last_known:
            self.accelerator.get_tracker("wandb").log_images({"samples": [grid]}, step=step)

    def finish(self) -> str | None:
        """Close the tracker, and the ties between processes; returns how to upload an offline run."""
        upload = None
        if self.name != "none" and self.accelerator.is_main_process:
            run = self.accelerator.get_tracker("wandb", unwrap=True)
            if run.offline:
                # A run that was resumed has a folder for each time; wandb joins them by the run's id.
                folders = offline_folders(self.folder, run.id)
                upload = " ".join(["wandb sync", *(str(folder) for folder in folders)])
        # A process that leaves with gloo's threads alive may abort on its way out.
        self.accelerator.end_training()
        return upload
