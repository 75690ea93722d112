"""Temporary files: each visitor's own, gone when the visit ends, none left by a server that was killed."""

import contextlib
import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

PREFIX = "cyclegan-app-"
LOCK = ".lock"
OWN = "visit-"
SHARED = "shared"  # small pictures of what is offered, the same for all
GRACE_S = 20.0  # a page that is reloaded, or a line that breaks for a moment, comes back within it
IDLE_S = 15 * 60.0  # programs that hold no line open; long enough to fetch what they asked for
SWEEP_S = 2.0


@dataclass
class Visit:
    """What one session hash has used.

    Attributes:
        folder: of its own results; its name is a secret, and who has not been told it cannot ask for it.
        lines: heartbeats that are open.
        seen: when it last asked for something, or its last line closed (monotonic, s).
        had_line: programs may come without.
        stop: set when the visitor asks to end what is at work.
    """

    folder: Path
    uploads: set[Path] = field(default_factory=set)
    lines: int = 0
    seen: float = 0.0
    had_line: bool = False
    stop: bool = False


class Sessions:
    """All visits of one server, in one temporary folder that belongs to it."""

    def __init__(self, grace_s: float = GRACE_S, idle_s: float = IDLE_S) -> None:
        sweep_leftovers()
        self.root = Path(tempfile.mkdtemp(prefix=PREFIX)).resolve()
        self.shared = self.root / SHARED
        self.shared.mkdir()
        self.grace_s, self.idle_s = grace_s, idle_s
        self._lock_file = (self.root / LOCK).open("w")
        fcntl.flock(self._lock_file, fcntl.LOCK_EX)
        self._visits: dict[str, Visit] = {}
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._sweeper = threading.Thread(target=self._sweep_often, name="app sessions", daemon=True)
        self._sweeper.start()

    def close(self) -> None:
        """End all visits and remove the folder."""
        self._stop.set()
        self._sweeper.join()
        with self._lock:
            self._visits.clear()  # nobody waits for anything any more
        shutil.rmtree(self.root, ignore_errors=True)
        self._lock_file.close()

    def __len__(self) -> int:
        return len(self._visits)

    def visit(self, session: str) -> Visit:
        """The visit of a session hash, begun if it is new; it counts as heard of now."""
        with self._lock:
            if session not in self._visits:
                self._visits[session] = Visit(self.root / f"{OWN}{secrets.token_hex(16)}")
            visit = self._visits[session]
            visit.seen = time.monotonic()
            return visit

    def is_open(self, session: str) -> bool:
        """Whether somebody still waits for what this session asked for."""
        with self._lock:
            visit = self._visits.get(session)
            if visit is None:
                return False
            if not visit.had_line:
                visit.seen = time.monotonic()  # being worked for counts as being there
                return True
            return visit.lines > 0 or time.monotonic() - visit.seen < self.grace_s

    def new_folder(self, session: str) -> Path:
        """An empty folder for one result."""
        folder = self.visit(session).folder / secrets.token_hex(8)
        folder.mkdir(parents=True)
        return folder

    def used(self, session: str, path: Path) -> None:
        """An uploaded file belongs to the visits that named it."""
        with self._lock:
            self.visit(session).uploads.add(path)

    def may_use(self, session: str, path: Path) -> bool:
        """Whether ``path`` (resolved) is an uploaded file, or a result of this very visit."""
        if not path.is_relative_to(self.root) or not path.is_file() or path.name == LOCK:
            return False
        top = path.relative_to(self.root).parts[0]
        return not top.startswith(OWN) or path.is_relative_to(self.visit(session).folder)

    def line_opened(self, session: str) -> None:
        with self._lock:
            visit = self.visit(session)
            visit.lines += 1
            visit.had_line = True

    def line_closed(self, session: str) -> None:
        with self._lock:
            visit = self.visit(session)
            visit.lines = max(0, visit.lines - 1)

    def end(self, session: str) -> None:
        """Remove what the visit had; an upload that another visit has named, too, stays for that one."""
        with self._lock:
            visit = self._visits.pop(session, None)
            others = set().union(*(each.uploads for each in self._visits.values()))
        if visit is None:
            return
        shutil.rmtree(visit.folder, ignore_errors=True)
        for path in visit.uploads - others:
            _remove(path)

    def _sweep_often(self) -> None:
        while not self._stop.wait(SWEEP_S):
            self.sweep()

    def is_quiet(self, session: str) -> bool:
        """Whether nobody holds a line and nothing was heard for a while; its files may still be fetched."""
        with self._lock:
            visit = self._visits.get(session)
            return visit is None or (not visit.lines and time.monotonic() - visit.seen > self.grace_s)

    def sweep(self) -> None:
        """End the visits that are over, and remove uploads that nobody ever used."""
        now = time.monotonic()
        with self._lock:
            over = [
                session
                for session, visit in self._visits.items()
                if not visit.lines and now - visit.seen > (self.grace_s if visit.had_line else self.idle_s)
            ]
            known = set().union(*(visit.uploads for visit in self._visits.values()))
        for session in over:
            self.end(session)
        oldest = time.time() - self.idle_s
        for pattern in ("[!.]*", "[!.]*/*"):  # uploads that broke off, and whole ones
            for path in self.root.glob(pattern):
                if path.parent.name.startswith((OWN, SHARED)) or path in known or not path.is_file():
                    continue
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < oldest:
                        _remove(path)


def sweep_leftovers() -> None:
    """Remove the folders of servers that were killed; those at work hold a lock on theirs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        lock = folder / LOCK
        if folder.is_symlink() or not lock.is_file() or folder.stat().st_uid != os.getuid():
            continue
        with lock.open("r+") as file:
            if _locks(file):
                shutil.rmtree(folder, ignore_errors=True)


def _locks(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not empty, or gone
        path.parent.rmdir()
