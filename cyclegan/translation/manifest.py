"""manifest.jsonl: how each file of an output folder came to be, one line of JSON for each.

A line is written before its file takes its name, and holds the file's size and time of change: after a
kill at any moment a file either is the one that its line describes, or it is not done. Several processes
write ``manifest.<rank>.jsonl`` each, which are merged at the end; of two lines for one output the later
holds.
"""

import contextlib
import datetime
import json
import os
import sys
import threading
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.translation.shares import Share

MANIFEST = "manifest.jsonl"


class FileState(NamedTuple):
    """A file as it was: its digest, and size and time of change, which are faster to compare."""

    sha256: str
    bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path, sha256: str | None = None) -> "FileState":
        """Raises OSError when the file cannot be read."""
        status = path.stat()
        return cls(sha256_of(path) if sha256 is None else sha256, status.st_size, status.st_mtime_ns)

    def is_still(self, path: Path, status: os.stat_result) -> bool:
        """Is this the file there now? Its content is read only if size fits and time does not."""
        if status.st_size != self.bytes:
            return False
        try:
            return status.st_mtime_ns == self.mtime_ns or sha256_of(path) == self.sha256
        except OSError:
            return False


class Entry(NamedTuple):
    """What recognising a file needs of its line."""

    made_by: str
    input: str
    source: FileState | None
    result: FileState | None
    failed: bool


class Manifest:
    """One process's writing of the record; safe to be called from several threads.

    Args:
        folder: the output folder.
        share: which process this is.
        facts: what all lines have in common: generator_sha256, licences and attribution of the training
            images, settings, label, signed, cyclegan_version.
    """

    def __init__(self, folder: Path, share: Share, facts: dict[str, Any]) -> None:
        self.folder = folder
        self.facts = facts
        self.made_by = _maker(facts)
        self.path = folder / (MANIFEST if share.world == 1 else f"manifest.{share.rank}.jsonl")
        self._file: FileIO | None = None
        self._lock = threading.Lock()

    def written(self, output: str, input: str, source: FileState, result: FileState) -> None:
        """Record a translation that is about to take its name."""
        self._append(output, input, source, result, None)

    def failed(
        self, output: str, input: str, error: str, source: FileState | None, old: Entry | None
    ) -> None:
        """Record a failure; what ``old`` says of a file that still lies there stays known."""
        self._append(output, input, source, None if old is None else old.result, error)

    def _append(
        self, output: str, input: str, source: FileState | None, result: FileState | None, error: str | None
    ) -> None:
        line = {
            "output": output,
            **_as_fields("output", result),
            "input": input,
            **_as_fields("input", source),
            **self.facts,
            "time": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="microseconds"),
            "error": error,
        }
        data = (json.dumps(line) + "\n").encode()
        with self._lock:
            if self._file is None:
                self._file = _open_mended(self.path)
            end = self._file.seek(0, os.SEEK_END)
            try:
                # A full disk may take a part of it and refuse the rest only when asked again.
                while data:
                    data = data[self._file.write(data) :]
            except OSError:
                self._file.truncate(end)
                raise

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file = None


def _maker(facts: dict[str, Any]) -> str:
    """What must be equal for a file to count as done."""
    return json.dumps(
        [facts["generator_sha256"], facts["settings"], facts["label"], facts["signed"]], sort_keys=True
    )


def _as_fields(name: str, state: FileState | None) -> dict[str, Any]:
    values = (None, None, None) if state is None else state
    return {f"{name}_{field}": value for field, value in zip(FileState._fields, values, strict=True)}


def _open_mended(path: Path) -> FileIO:
    """Open for appending; a last line that a kill left torn is cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = FileIO(path, "a+")
    end = file.seek(0, os.SEEK_END)
    while end:
        start = file.seek(max(0, end - (1 << 16)))
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    file.truncate(end)
    return file


def manifest_files(folder: Path) -> list[Path]:
    """The record and those parts that are not merged into it yet."""
    return [path for path in (folder / MANIFEST, *sorted(folder.glob("manifest.*.jsonl"))) if path.is_file()]


def _lines(path: Path) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Offset, bytes and values of each whole line."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # torn by a kill
            try:
                values = json.loads(line)
                yield offset, line, {**values, "output": str(values["output"]), "time": str(values["time"])}
            except (ValueError, KeyError, TypeError) as error:
                raise BadInput(
                    f"{path}: line {number} is not a record of a translation; move the file away, or name "
                    "another output"
                ) from error
            offset += len(line)


def read_entries(folder: Path) -> dict[str, Entry]:
    """What the record says of each output, by its name.

    Raises:
        BadInput: a line that is not a record.
    """
    found: dict[str, Entry] = {}
    times: dict[str, str] = {}
    for path in manifest_files(folder):
        for _, _, values in _lines(path):
            output = values["output"]
            if values["time"] >= times.get(output, ""):
                times[output] = values["time"]
                found[output] = _entry(path, values)
    return found


def computed_by(folder: Path) -> tuple[str | None, str | None]:
    """Backend and precision of the first recorded file: what was begun is gone on with by the same."""
    lines = (values for path in manifest_files(folder) for _, _, values in _lines(path))
    settings = next(lines, {}).get("settings")
    settings = settings if isinstance(settings, dict) else {}
    backend = settings.get("backend")
    return (
        backend if backend in ("torch", "onnx", "openvino") else None,
        choice_in(str(settings.get("precision"))),
    )


def choice_in(precision: str) -> str | None:
    """What --precision can be of a backend's ``precision``: of "int8 and bf16" the rest alone."""
    choice = precision.rpartition(" ")[2]
    return choice if choice in ("fp32", "bf16", "fp16") else None


def _entry(path: Path, values: dict[str, Any]) -> Entry:
    try:
        source, result = (
            None
            if values[f"{name}_sha256"] is None
            else FileState(*(values[f"{name}_{field}"] for field in FileState._fields))
            for name in ("input", "output")
        )
        return Entry(sys.intern(_maker(values)), values["input"], source, result, values["error"] is not None)
    except KeyError as error:
        raise BadInput(
            f"{path}: the line of {values['output']} has no {error}; move the file away, or name another "
            "output"
        ) from error


def merge(folder: Path) -> None:
    """One line for each output, in the order of their names, in one file; the parts are removed.

    Raises:
        OSError: it cannot be written; nothing is lost then.
    """
    files = manifest_files(folder)
    latest: dict[str, tuple[str, int, int, int]] = {}
    in_order = len(files) == 1
    previous = ""
    for number, path in enumerate(files):
        for offset, line, values in _lines(path):
            output, at = values["output"], values["time"]
            in_order, previous = in_order and output > previous, output
            if output not in latest or at >= latest[output][0]:
                latest[output] = (at, number, offset, len(line))
    if not in_order and files:
        _write_sorted(folder, files, latest)
    for path in files:
        if path.name != MANIFEST:
            path.unlink()


def _write_sorted(folder: Path, files: list[Path], latest: dict[str, tuple[str, int, int, int]]) -> None:
    partial = folder / f".{MANIFEST}.{os.getpid()}.part"
    try:
        with contextlib.ExitStack() as stack:
            sources = [stack.enter_context(path.open("rb")) for path in files]
            merged = stack.enter_context(partial.open("wb"))
            for output in sorted(latest):
                _, number, offset, length = latest[output]
                sources[number].seek(offset)
                merged.write(sources[number].read(length))
            merged.flush()
            os.fsync(merged.fileno())
        partial.replace(folder / MANIFEST)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
