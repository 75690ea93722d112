"""Files that appear whole or not at all, and the lock on one."""

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO


def replace_file(
    path: Path, data: bytes, before: Callable[[Path], None] | None = None, lasting: bool = False
) -> None:
    """Put ``data`` at ``path`` whole or not at all (``replacing``).

    ``lasting``: on the disk when it returns, so that a power cut leaves the old file or the new one.
    """
    with replacing(path, before) as partial:
        partial.write_bytes(data)
        if lasting:
            flush(partial)
    if lasting:
        flush(path.parent)


@contextlib.contextmanager
def replacing(path: Path, before: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it when the block ends well, removed when not.

    ``before`` is called with the temporary file, whole, just before it takes its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The thread's number is in it, for two long names may begin alike.
    partial = path.with_name(f".{path.name[:40]}.{os.getpid()}.{threading.get_native_id()}.part")
    try:
        yield partial
        if before is not None:
            before(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """A file or a folder to the disk, not only to the system's cache."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def try_lock(file: IO[str], how: int = fcntl.LOCK_EX) -> bool:
    """Take the POSIX lock of an open file; False where another process holds it.

    Raises:
        OSError: some network file systems have no locks.
    """
    try:
        # Not flock: a forked loader process would go on holding that when the trainer is killed.
        fcntl.lockf(file, how | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # by POSIX either may be said of one that is held
        return False
    return True
