"""Several processes share one folder: whose part is what, and how they end together.

They speak to each other through the output folder alone, so that machines which have only that in
common can share the work.
"""

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from cyclegan.errors import BadInput
from cyclegan.files import replace_file
from cyclegan.networks.inference import inference_device

MEETING = ".translating"  # in the output folder, while several processes are at work
_LEADER = "leader"
_CHOICE = "choice"
_POLL_S = 0.1


@dataclass(frozen=True)
class Share:
    """This process is number ``rank`` of ``world``, ``local_rank`` of ``local_world`` on its machine."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    local_world: int = 1

    @classmethod
    def of_environment(cls) -> "Share":
        """As torchrun and accelerate launch say it to each process that they start.

        Raises:
            BadInput: the variables are not numbers that fit each other.
        """
        names = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1}
        given = {name: os.environ.get(name, str(default)) for name, default in names.items()}
        try:
            share = cls(*(int(value) for value in given.values()))
        except ValueError as error:
            raise BadInput(
                f"RANK, WORLD_SIZE, LOCAL_RANK: not numbers in the environment ({error})"
            ) from error
        if not (0 <= share.rank < share.world and share.local_rank >= 0):
            raise BadInput(f"RANK={share.rank}, WORLD_SIZE={share.world}: do not fit each other")
        return share

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def device(self) -> torch.device:
        """The GPU that is this process's own, else what the machine has."""
        device = inference_device()
        if device.type != "cuda":
            return device
        return torch.device("cuda", self.local_rank % torch.cuda.device_count())

    def windows(self, count: int, size: int) -> Iterator[range]:
        """The stretches of ``size`` positions, of ``count``, that this process has to do.

        Where a stretch begins depends on the list of files alone, and so do the batches made within it:
        a picture is computed in the same company whoever does it, and after whichever interruption.
        """
        for start in range(self.rank * size, count, self.world * size):
            yield range(start, min(start + size, count))


def chosen(target: Path, share: Share, question: str) -> Any:
    """What the leader has told the others of its choice (``tell``); they wait for it.

    A choice that a killed run left holds for the leader too, for the others may have read it already.

    Args:
        target: the output folder.
        question: all that was asked for. A choice in answer to something else is none.

    Returns:
        The choice; None for a leader that has yet to make it.
    """
    while True:
        said = json.loads(_read(target / MEETING / _CHOICE) or "{}")
        if said.get("question") == question:
            return said["choice"]
        if share.leads:
            return None
        time.sleep(_POLL_S)


def tell(target: Path, question: str, choice: Any) -> None:
    """Make the leader's choice everybody's.

    Raises:
        OSError: it cannot be written.
    """
    said = json.dumps({"question": question, "choice": choice})
    replace_file(target / MEETING / _CHOICE, said.encode())


def meet(target: Path, share: Share, report: dict[str, Any]) -> list[dict[str, Any]]:
    """Wait until all processes have done their share.

    The leader, rank 0, writes a token; the others answer it with their reports. When it has them all it
    returns, and calls ``part``; its token's disappearance lets the others go. What a killed run left
    there cannot mislead: an old answer does not hold the new token, an old token is answered anew.

    Returns:
        All reports by rank for the leader; for the others none.
    """
    folder = target / MEETING
    if share.leads:
        return _hear(folder, share, report)
    _answer(folder, share, report)
    return []


def part(target: Path) -> None:
    """Let the others go, and leave no trace."""
    (target / MEETING / _LEADER).unlink(missing_ok=True)
    shutil.rmtree(target / MEETING, ignore_errors=True)


def _hear(folder: Path, share: Share, report: dict[str, Any]) -> list[dict[str, Any]]:
    token = secrets.token_hex(16)
    replace_file(folder / _LEADER, token.encode())
    reports = {0: report}
    while len(reports) < share.world:
        for rank in set(range(share.world)) - set(reports):
            answer = _read(folder / str(rank))
            if answer is not None and json.loads(answer)["token"] == token:
                reports[rank] = json.loads(answer)["report"]
        time.sleep(_POLL_S if len(reports) < share.world else 0)
    return [reports[rank] for rank in range(share.world)]


def _answer(folder: Path, share: Share, report: dict[str, Any]) -> None:
    answered = None
    while True:
        token = _read(folder / _LEADER)
        if token is None and answered is not None:
            return
        if token is not None and token != answered:
            replace_file(folder / str(share.rank), json.dumps({"token": token, "report": report}).encode())
            answered = token
        time.sleep(_POLL_S)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
