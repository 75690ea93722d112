"""Saving while training goes on: a copy is taken between two steps, a thread writes it."""

import errno
import threading
import time
from collections.abc import Callable
from typing import Any

import torch

Write = Callable[[], Any]


class SavingFailed(Exception):
    """The last save of a run could not be written; what was saved before stays good."""


class Saver:
    """Writes one save after the other, off the training thread, and remembers what did not work.

    A save that fails (a full disk) costs a line, not the run: ``failed`` stays true until a later one
    succeeds, so that the loop tries again soon. A defect is not swallowed: it is raised at the next call.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say
        self.seconds = 0.0  # that the training thread spent here, copies and waiting
        self.failed = False
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *_: object) -> None:
        """What was begun is written to its end, whatever ends the training."""
        if self._thread is not None:
            self._thread.join()

    def begin(self, prepare: Callable[[], Write], what: str) -> None:
        """Take the copy that ``prepare`` makes, now; call what it returns, in the background.

        One save at a time: it waits for the one before.
        """
        began = time.monotonic()
        self.wait()
        write = prepare()
        self._thread = threading.Thread(target=self._work, args=(write, what), name="saving")
        self._thread.start()
        self.seconds += time.monotonic() - began

    def wait(self) -> None:
        """Until nothing is being written."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def now(self, prepare: Callable[[], Write], what: str) -> None:
        """Save, and come back when it is on the disk.

        Raises:
            SavingFailed: it could not be written.
        """
        began = time.monotonic()
        self.wait()
        try:
            prepare()()
        except OSError as error:
            self.failed = True
            raise SavingFailed(f"{what} could not be saved ({reason(error)})") from error
        self.failed = False
        self.seconds += time.monotonic() - began

    def _work(self, write: Write, what: str) -> None:
        try:
            write()
            self.failed = False
        except OSError as error:
            self.failed = True
            self.say(
                f"{what} could not be saved ({reason(error)}); the one before stays good, training goes on "
                "and tries again"
            )
        except BaseException as error:  # raised on the training thread, at the next call
            self._error = error


def reason(error: OSError) -> str:
    """In words, with the remedy for the commonest cause."""
    words = error.strerror or str(error)
    return f"{words}; free some space" if disk_is_full(error) else words


def disk_is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def copied(state: Any) -> Any:
    """The same nested tables, lists and values, tensors copied to the CPU: later steps leave them alone."""
    if isinstance(state, torch.Tensor):
        # clone() on the CPU; elsewhere the move is the copy.
        return state.detach().clone() if state.device.type == "cpu" else state.detach().cpu()
    if isinstance(state, dict):
        return {key: copied(value) for key, value in state.items()}
    if isinstance(state, (list, tuple)):
        return type(state)(copied(value) for value in state)
    return state
