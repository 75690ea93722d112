"""What processes that were killed left half-written beside their outputs (``files.replace_file``)."""

import os
import re
import threading
import time
from pathlib import Path

_NAME = re.compile(r"\..*\.(\d+)\.(\d+)\.part")  # of the file, the process, the thread
_SURELY_DEAD_S = 600  # a file is written in less


def sweep(folder: Path, one_machine: bool) -> None:
    """Remove them from ``folder`` itself; files that are being written now stay.

    ``one_machine``: all who write there are on this machine, so that their numbers can be looked up; of
    others only age tells.
    """
    for path in folder.glob(".*.part"):
        found = _NAME.fullmatch(path.name)
        if found is None:
            continue
        process, thread = int(found[1]), int(found[2])
        if process == os.getpid():  # perhaps from before: in a container the same number comes again
            dead = thread not in {running.native_id for running in threading.enumerate()}
        else:
            dead = _age(path) > _SURELY_DEAD_S or (one_machine and not _is_running(process))
        if dead:
            path.unlink(missing_ok=True)


def _age(path: Path) -> float:
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0  # it took its name meanwhile


def _is_running(process: int) -> bool:
    if os.name == "nt":
        return True  # there, os.kill would end it; age alone decides
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # somebody else's
    return True
