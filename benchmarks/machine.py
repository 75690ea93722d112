"""What is measured on, what a process takes of it, and how a report ends."""

import json as to_json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch


def peak_mib() -> float:
    """The process' own peak; Linux' getrusage would count the parent's, from before this program began."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts in bytes
    return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024


def machine() -> dict[str, Any]:
    name = "unknown"
    info = Path("/proc/cpuinfo")
    if info.exists():
        name = next(
            (line.split(": ")[1] for line in info.read_text().split("\n") if "model name" in line), name
        )
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA")
    return {
        "machine": f"{name}, ONEDNN_MAX_CPU_ISA={limit}" if limit else name,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": sys.version.split()[0],
    }


def conclude(report: dict[str, Any], json: bool) -> None:
    """The machine in words and, where it is asked for, all that was found with it, as one line of JSON."""
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    if json:
        print(to_json.dumps({**report, **about}))
