"""Which start of torchrun a process belongs to, so that a group that it starts again finds its own run."""

import json
import os
import socket
from pathlib import Path

import psutil

from cyclegan.files import replace_file

LAUNCH = "launch.json"


def this_launch() -> dict[str, str | float] | None:
    """What stays the same while torchrun starts its workers again and again; None without torchrun.

    ``--rdzv-id`` where one is given (``--standalone`` makes one up); else the very agent, by host,
    process number and start.
    """
    run_id = os.environ.get("TORCHELASTIC_RUN_ID")
    if run_id is None:
        return None
    if run_id != "none":
        return {"rdzv_id": run_id}
    agent = psutil.Process(os.getppid())
    return {"host": socket.gethostname(), "agent": agent.pid, "since": agent.create_time()}


def is_spokesman() -> bool:
    """Whether this process, of all that torchrun started, is the one that tells people."""
    return os.environ.get("RANK", "0") == "0"


def note_launch(run_folder: Path) -> None:
    """Say in the run's folder which launch began it, or went on with it, last."""
    launch = this_launch()
    if launch is None:
        (run_folder / LAUNCH).unlink(missing_ok=True)
    else:
        replace_file(run_folder / LAUNCH, (json.dumps(launch) + "\n").encode(), lasting=True)


def is_of_this_launch(run_folder: Path) -> bool:
    """Whether this very launch began the run, or went on with it, before now."""
    launch = this_launch()
    if launch is None or not (run_folder / LAUNCH).is_file():
        return False
    return json.loads((run_folder / LAUNCH).read_text()) == launch
