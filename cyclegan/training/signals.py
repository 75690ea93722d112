"""Signals that ask a run to stop: it finishes its step, saves, and leaves with a status to requeue by."""

import os
import signal
import sys
import time
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed
from accelerate import Accelerator

# Schedulers send SIGTERM, or what `--signal` of sbatch says; SIGINT is Ctrl-C.
ASKED_BY = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# EX_TEMPFAIL of sysexits.h: it did not fail, try again later.
STOPPED_STATUS = 75
# torchrun passes Ctrl-C on to processes that the terminal has told already.
ECHO_S = 0.5


class StopRequest:
    """While it is open, the three signals leave a note, no more; a second SIGINT ends all at once."""

    def __init__(self, accelerator: Accelerator, timeout: timedelta | None = None) -> None:
        self.received: signal.Signals | None = None
        self._since = 0.0
        self._before: dict[int, object] = {}
        self._group: torch.distributed.ProcessGroup | None = None
        if accelerator.num_processes > 1:
            # Over the CPU also where gradients go from GPU to GPU: no kernel is waited for.
            self._group = torch.distributed.new_group(timeout=timeout, backend="gloo")
        self.live = accelerator.is_main_process

    def __enter__(self) -> "StopRequest":
        for number in ASKED_BY:
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None and number == signal.SIGINT
        now = time.monotonic()
        if again and not ("TORCHELASTIC_RUN_ID" in os.environ and now - self._since < ECHO_S):
            # Whole or not at all holds for every file, so nothing has to be cleaned up.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        if self.received is None:
            self.received, self._since = signal.Signals(number), now
            if self.live:
                os.write(
                    sys.stderr.fileno(),
                    f"\n{self.received.name}: finishing the step, saving; Ctrl-C stops at once\n".encode(),
                )

    def exchange(self, retry: bool) -> tuple[signal.Signals | None, bool]:
        """What any of the processes was asked, or wants; all get the same answer, after the same step.

        Returns:
            The signal that asks to stop, if one came, and whether a save is to be tried again.
        """
        if self._group is None:
            return self.received, retry
        mine = torch.tensor([self.received or 0, int(retry)])
        torch.distributed.all_reduce(mine, torch.distributed.ReduceOp.MAX, group=self._group)
        number, again = mine.tolist()
        return signal.Signals(number) if number else None, bool(again)


def is_lost_contact(error: RuntimeError) -> bool:
    """Whether it says that another process of the group is gone, and not that something is wrong here."""
    said = str(error)
    return isinstance(error, torch.distributed.DistError) or any(
        words in said for words in ("Connection closed by peer", "Connection reset by peer", "gloo", "NCCL")
    )


def deaf_to_stop_requests(_: int) -> None:
    """For loader processes, which schedulers and terminals signal too: the trainer ends them, no one else."""
    for number in ASKED_BY:
        signal.signal(number, signal.SIG_IGN)
