"""What W&B kept offline of a run, read back: which steps a broken-off process had handed over."""

from collections.abc import Iterator
from pathlib import Path

# A .wandb file is a log in LevelDB's format (its doc/log_format.md) after a header of 7 bytes.
_FILE_HEADER, _BLOCK, _RECORD_HEADER = 7, 32768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def offline_folders(run_folder: Path, run_id: str) -> list[Path]:
    """W&B's folders of one run, one for each time that it went on, oldest first."""
    return sorted((run_folder / "wandb").glob(f"offline-run-*-{run_id}"))


def last_offline_step(run_folder: Path, run_id: str) -> int:
    """The highest step in all files that W&B kept of a run; -1 where there is none."""
    last = -1
    for folder in offline_folders(run_folder, run_id):
        file = folder / f"run-{run_id}.wandb"
        if file.is_file():
            last = max([last, *history_steps(file)])
    return last


def history_steps(file: Path) -> Iterator[int]:
    """The steps that a .wandb file holds lines of history for."""
    from wandb.proto.wandb_internal_pb2 import Record

    for data in _records(file.read_bytes()):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            yield record.history.step.num


def _records(data: bytes) -> Iterator[bytes]:
    """Whole records; a process that was killed may have left a last one cut short, which is passed over."""
    position, joined = _FILE_HEADER, b""
    while position + _RECORD_HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _RECORD_HEADER:  # too small for a header: padding
            position += left
            continue
        length = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]
        begin = position + _RECORD_HEADER
        position = begin + length
        if position > len(data) or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            return
        joined += data[begin:position]
        if kind in (_FULL, _LAST):
            yield joined
            joined = b""
