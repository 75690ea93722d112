"""A run's folder before it is written to: one training at a time, and nothing in the way."""

import os
import socket
import sys
import time
from pathlib import Path
from typing import IO

from cyclegan.errors import BadInput
from cyclegan.files import try_lock
from cyclegan.training.launch import is_of_this_launch

LOCK = ".lock"
FOLDERS = ("checkpoints", "samples", "generators", "translated")
FILES = (
    "config.yaml",
    "metrics.jsonl",
    "evaluations.jsonl",
    "trouble.jsonl",
    "warnings.jsonl",
    "report.html",
)
# A process that was killed gives its memory back first, and its lock only then.
PATIENCE_S = 5.0
# torchrun starts a group again while a process of it, on a machine that was cut off, may still be ending.
PATIENCE_OF_A_GROUP_S = 120.0


class Claim:
    """The lock on one run's folder, held by the main process from before its first change to its end.

    It is the system's own record of the process (POSIX), not the file: a process that dies by whatever
    means, SIGKILL as well, holds nothing, and loader processes that it leaves behind do not either.
    """

    def __init__(self) -> None:
        self._file: IO[str] | None = None

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def take(self, folder: Path) -> None:
        """Claim ``folder``, which is made if it is not there; once it is held, nothing.

        Raises:
            BadInput: another training is at work in it, it cannot be written, or a file is in the way.
        """
        if self._file is not None:
            return
        refuse_what_is_in_the_way(folder)
        patience = PATIENCE_OF_A_GROUP_S if is_of_this_launch(folder) else PATIENCE_S
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / LOCK).open("a+")
        except OSError as error:
            raise BadInput(
                f"{folder}: cannot be written ({error.strerror}); name another --run-dir"
            ) from error
        until = time.monotonic() + patience
        while not self._locked(file, folder):
            if time.monotonic() > until:
                file.seek(0)
                holder = file.read().strip() or "another process"
                file.close()
                raise BadInput(
                    f"{folder}: another training is at work in it ({holder}); wait for its end or stop it, "
                    "or name another --run-dir"
                )
            time.sleep(0.1)
        self._file = file
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()

    def _locked(self, file: IO[str], folder: Path) -> bool:
        try:
            return try_lock(file)
        except OSError as error:
            print(f"{folder}: cannot be locked ({error.strerror}); keep other trainings out", file=sys.stderr)
            return True

    def release(self) -> None:
        """The file stays: who removes it may remove the one that another has locked meanwhile."""
        if self._file is not None:
            self._file.close()
            self._file = None


def refuse_what_is_in_the_way(folder: Path) -> None:
    """Files where folders go, and the other way round, before hours later something cannot be written.

    Raises:
        BadInput: the first one found.
    """
    for path in (folder, *(folder / name for name in FOLDERS)):
        if os.path.lexists(path) and not path.is_dir():
            raise BadInput(
                f"{path}: is a file where a run keeps a folder; remove it, or name another --run-dir"
            )
    for name in FILES:
        if (folder / name).is_dir():
            raise BadInput(
                f"{folder / name}: is a folder where a run keeps a file; remove it, or name another --run-dir"
            )
