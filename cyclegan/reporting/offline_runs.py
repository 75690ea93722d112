"""What W&B kept offline of a run, read back: which steps a broken-off process had handed over."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

# A .wandb file is a log in LevelDB's format (its doc/log_format.md) after a header of 7 bytes.
_FILE_HEADER, _BLOCK, _RECORD_HEADER = 7, 32768, 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def last_steps(folders: Iterable[Path]) -> dict[str, int]:
    """The last step of numbers and of samples in the files of offline folders; -1 where there is none."""
    last = {"numbers": -1, "samples": -1}
    for folder in folders:
        for file in folder.glob("run-*.wandb"):
            for row in history_rows(file):
                kind = "samples" if "samples" in row else "numbers" if "epoch" in row else None
                if kind is not None and "step" in row:
                    last[kind] = max(last[kind], int(json.loads(row["step"])))
    return last


def history_rows(file: Path) -> Iterator[dict[str, str]]:
    """The rows of history in a .wandb file: JSON values by their outermost names."""
    from google.protobuf.message import DecodeError
    from wandb.proto.wandb_internal_pb2 import Record

    for data in _records(file.read_bytes()):
        record = Record()
        try:
            record.ParseFromString(data)
        except DecodeError:  # cut short where a block was
            return
        if record.WhichOneof("record_type") == "history":
            yield {item.key or item.nested_key[0]: item.value_json for item in record.history.item}


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
