"""Trainings: `cyclegan train` in processes of their own, found again by the folders of their runs.

What is known of a training lies in its run's folder and with the system, not in this process: the lock that a
training holds while it lives, about.json, and ``app.json`` with what was started from here.
"""

import contextlib
import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cyclegan.app.limits import Limits, said_of, unpack
from cyclegan.datasets.cards import datasets_root, list_cards
from cyclegan.errors import BadInput, shown
from cyclegan.files import try_lock
from cyclegan.images import replace_file
from cyclegan.recipes import project_files
from cyclegan.reporting.report import is_run
from cyclegan.reporting.report.about import read_about

NOTE, CONSOLE, LOCK = "app.json", "console.log", ".lock"
LENGTHS = ("minutes", "steps", "epochs")
GRIDS_EVERY, LINES_EVERY = 100, 10  # steps: somebody watches
_HOLDER = re.compile(r"process (\d+) on (.*)")


@dataclass(frozen=True)
class Plan:
    """What is to be trained.

    Args:
        domain: a card's name, or the name of own pictures.
        recipe: of ``experiments/``; None for the domain's own, or the defaults where it has none.
        length, unit: when it ends.
        size: of the training images in pixels; None for the recipe's.
        a, b: folders of own pictures.
    """

    domain: str
    recipe: str | None
    length: float
    unit: str
    size: int | None = None
    a: Path | None = None
    b: Path | None = None

    def __post_init__(self) -> None:
        if self.unit not in LENGTHS:
            raise BadInput(f"length: is counted in {', '.join(LENGTHS)}, not {self.unit}")
        if not self.length or self.length <= 0:
            raise BadInput("length: must be more than 0")
        if self.unit == "steps" and self.length != int(self.length):
            raise BadInput("length: steps are whole numbers")
        if self.recipe is not None and self.recipe not in project_files("experiments"):
            raise BadInput(f"{self.recipe}: no such recipe is offered here")
        if self.a is None and self.domain not in list_cards():
            raise BadInput(f"{self.domain}: no such domain is offered here")

    def arguments(self, run: Path) -> list[str]:
        """Of ``cyclegan train``."""
        every = GRIDS_EVERY
        if self.unit == "steps":
            every = max(1, min(every, int(self.length) // 5))
        words = [self.recipe or self.domain] if self.recipe or self.a is None else []
        if words != [self.domain]:
            words += ["--domain", self.domain]
        if self.a is not None and self.b is not None:
            words += ["--data.a", str(self.a), "--data.b", str(self.b)]
        for unit in ("steps", "epochs", "images", "minutes"):  # the recipe's own limit gives way
            words += [f"--{unit}", f"{self.length:g}" if unit == self.unit else "None"]
        if self.size is not None:
            words += ["--size", str(self.size), "--augment.load-size", "None"]
        words += ["--samples.every", str(every), "--checkpoint.every", str(every)]
        words += ["--log-every", str(min(LINES_EVERY, every)), "--tracker", "none", "--run-dir", str(run)]
        return words


@dataclass(frozen=True)
class Training:
    """A run as it stands: ``state`` is starting, training, stopping, finished, stopped or failed."""

    run: Path
    state: str
    pid: int | None = None
    says: str = ""

    @property
    def is_alive(self) -> bool:
        return self.pid is not None


class Trainings:
    """Starts, stops and finds trainings; keeps nothing but the children that are to be reaped."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._children: dict[Path, subprocess.Popen] = {}
        self._starting = threading.Lock()

    def known(self) -> dict[str, Path]:
        """Runs by name, ``domain/run``, those that were only just started as well; the newest first."""
        found = {}
        for name in ("config.yaml", NOTE):
            for path in self.runs.glob(f"*/*/{name}"):
                found[f"{path.parent.parent.name}/{path.parent.name}"] = path.parent
        return dict(sorted(found.items(), key=lambda item: item[1].name, reverse=True))

    def run(self, name: str) -> Path:
        """The folder of a run by its name.

        Raises:
            BadInput: there is none.
        """
        known = self.known()
        if name not in known:
            raise BadInput(f"{name}: there is no such run")
        return known[name]

    def begin(self, plan: Plan) -> Path:
        """Start a training; returns the folder of its run.

        Raises:
            BadInput: one is at work already, or the folder cannot be made.
        """
        with self._starting:
            self.refuse_second()
            return self._begin(plan)

    def _begin(self, plan: Plan) -> Path:
        run = self.runs / plan.domain / time.strftime("%Y%m%d-%H%M%S")
        try:
            run.mkdir(parents=True)
        except FileExistsError as error:
            raise BadInput(f"{run}: was begun this very second; try again") from error
        except OSError as error:
            raise BadInput(f"{run}: cannot be written ({error.strerror})") from error
        self._start(run, plan.arguments(run))
        return run

    def resume(self, run: Path) -> None:
        """Go on with a run that was stopped, from its newest checkpoint.

        Raises:
            BadInput: it is at work, or over.
        """
        state = self.look(run).state
        if state not in ("stopped", "failed"):
            raise BadInput(f"{run.name}: is {state}; only a run that was stopped can be resumed")
        with self._starting:
            self.refuse_second()
            self._start(run, ["--resume", str(run)])

    def stop(self, run: Path) -> None:
        """Ask a training to end its step, save and leave, as a scheduler does.

        Raises:
            BadInput: none is at work there.
        """
        found = self.look(run)
        if found.pid is None:
            raise BadInput(f"{run.name}: is {found.state}; there is nothing to stop")
        self._note(run, {**_read_note(run), "asked": found.pid})
        with contextlib.suppress(ProcessLookupError):  # it came to its end by itself
            os.kill(found.pid, signal.SIGTERM)

    def look(self, run: Path) -> Training:
        """How a run stands now."""
        child = self._children.get(run)
        status = None if child is None else child.poll()
        note = _read_note(run)
        holder = _holder(run)
        starting = _is_alive(note.get("pid"), note.get("began"))
        if holder is not None or starting:
            pid = holder or note["pid"]
            if note.get("asked") == pid:
                return Training(run, "stopping", pid, "It ends its step, saves and leaves.")
            return Training(run, "training" if holder else "starting", pid)
        last = _last_line(run / CONSOLE)
        if _has_ended(run):
            return Training(run, "finished")
        if status in (None, 75, -signal.SIGTERM) and is_run(run):
            return Training(run, "stopped", says=last)
        return Training(run, "failed", says=last or "It ended before it began.")

    def refuse_second(self) -> None:
        """Two at once would each take more than twice as long, and a stranger could start any number.

        Raises:
            BadInput: one is at work.
        """
        for name, run in self.known().items():
            if self.look(run).is_alive:
                raise BadInput(f"busy: {name} is being trained; wait for its end, or stop it")

    def _start(self, run: Path, arguments: Sequence[str]) -> None:
        command = [sys.executable, "-m", "cyclegan", "train", *arguments]
        with (run / CONSOLE).open("ab") as console:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # Of its own: neither Ctrl-C nor the end of the server reaches it.
                start_new_session=True,
            )
        self._children[run] = child
        began = None
        with contextlib.suppress(psutil.NoSuchProcess):
            began = psutil.Process(child.pid).create_time()
        self._note(run, {"pid": child.pid, "began": began, "command": said(arguments)})

    @staticmethod
    def _note(run: Path, note: dict[str, Any]) -> None:
        replace_file(run / NOTE, (json.dumps(note) + "\n").encode())


def said(arguments: Sequence[str], verb: str = "train") -> str:
    """A command as one would type it."""
    return shlex.join(["cyclegan", verb, *arguments])


def command_of(run: Path) -> str | None:
    """What was started from here, as one would type it."""
    return _read_note(run).get("command")


def console_of(run: Path, lines: int = 12) -> str:
    """The last lines that a training has written, as a page may have them."""
    path = run / CONSOLE
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 20_000))
        text = file.read().decode(errors="replace")
    return "\n".join(shown(line) for line in text.replace("\r", "\n").splitlines()[-lines:])


def own_pictures(name: str, zips: tuple[Path | None, Path | None], limits: Limits) -> tuple[Path, Path]:
    """Unpack two zips into ``datasets/<name>/A`` and ``B``, both or none of them.

    Without zips the pictures that were unpacked under the name before are taken.

    Raises:
        BadInput: a name that cannot be, one that is taken, or a zip that does not hold.
    """
    name = checked_name(name)
    folder = datasets_root() / name
    sides = folder / "A", folder / "B"
    if zips == (None, None) and all(side.is_dir() for side in sides):
        return sides
    if folder.exists():
        raise BadInput(
            f"{name}: there are pictures of this name already; leave the zips out to train on them, "
            "or choose another name"
        )
    partial = folder.with_name(f".{name}.{os.getpid()}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        for side, path in zip("AB", zips, strict=True):
            if path is None:
                raise BadInput(f"the zip of {side} is missing; a training needs pictures of both sides")
            if len(unpack(path, partial / side, limits)) < 2:
                raise BadInput(f"{path.name}: has one picture; two at least are needed, for one is held out")
        partial.rename(folder)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({said_of(error, partial)})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sides


def checked_name(name: str) -> str:
    """A name for own pictures and their runs.

    Raises:
        BadInput: it is none that a folder may have, or that of a known domain.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}", name or ""):
        raise BadInput("name: takes letters, digits, - and _, 60 of them at most, such as cats2dogs")
    if name in list_cards():
        raise BadInput(f"{name}: is the name of a known domain; choose another one")
    return name


def _holder(run: Path) -> int | None:
    """The process that trains in a folder, by the lock that it holds, if it is one of this machine."""
    path = run / LOCK
    try:
        with path.open() as file:
            if try_lock(file, fcntl.LOCK_SH):
                return None
            found = _HOLDER.match(file.read())
            return int(found[1]) if found and found[2] == socket.gethostname() else None
    except OSError:
        return None


def _is_alive(pid: Any, began: Any) -> bool:
    """Whether a process lives and is the one that was started, and not a later one of its number."""
    if not isinstance(pid, int):
        return False
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() == began
    except psutil.Error:
        return False


def _read_note(run: Path) -> dict[str, Any]:
    try:
        note = json.loads((run / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # begun elsewhere
        return {}
    return note if isinstance(note, dict) else {}


def _has_ended(run: Path) -> bool:
    try:
        about = read_about(run)
    except BadInput:
        return False
    return about is not None and about.ended is not None


def _last_line(path: Path) -> str:
    lines = [line for line in console_of(path.parent, 3).splitlines() if line.strip()]
    return lines[-1] if lines else ""
