"""Which file becomes which: a file, a folder, a glob or a list of paths, mirrored into the output."""

import fnmatch
import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

from cyclegan.errors import BadInput
from cyclegan.images import SUFFIXES, walk
from cyclegan.translation.options import Format

_SAME_FORMAT = {"jpg": (".jpg", ".jpeg"), "tiff": (".tif", ".tiff")}


@dataclass(frozen=True)
class Plan(Sequence[tuple[Path, Path]]):
    """Pairs of an input and its output, in a fixed order.

    Args:
        source: the folder that the inputs' names are relative to.
        target: likewise for the outputs.
        names: input and output of each pair; a hundred thousand of them are a few ten megabytes.
        is_folder: False where the user named the one output file.
    """

    source: Path
    target: Path
    names: Sequence[tuple[str, str]]
    is_folder: bool = True

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> tuple[Path, Path]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Path, Path]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Path, Path] | list[tuple[Path, Path]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        name, output = self.names[index]
        return self.source / name, self.target / output


def plan(source: Path, target: Path, format: Format | None = None) -> Plan:
    """Find the inputs and name their outputs; nothing is opened or written.

    Args:
        source: a picture; a folder, walked recursively; a glob such as ``photos/**/*.jpg``; or a ``.txt``
            file with one path a line, relative to that file.
        target: for one picture a file (by its suffix) or a folder, else a folder.
        format: of all outputs, in their suffix; default that of each input.

    Raises:
        BadInput: nothing to translate, two inputs for one output, or an output that is an input.
    """
    if source.is_file() and source.suffix.lower() != ".txt":
        found = _one(source, target, format)
    else:
        if target.is_file():
            raise BadInput(
                f"{target}: cannot be written to as a folder, for it is a file; name another output"
            )
        root, names = _inputs(source, target)
        found = Plan(root, target, [(name, _renamed(name, format)) for name in names])
    _refuse_unwritable(found)
    if format is not None:
        _refuse_collisions(found)
    _refuse_own_inputs(found)
    return found


def _one(source: Path, target: Path, format: Format | None) -> Plan:
    if target.is_dir() or not target.suffix:
        return Plan(source.parent, target, [(source.name, _renamed(source.name, format))])
    if format is not None and _renamed(target.name, format) != target.name:
        raise BadInput(
            f"{target}: is not named as a {format} file, as --format has it; leave one of them out"
        )
    return Plan(source.parent, target.parent, [(source.name, target.name)], is_folder=False)


def _inputs(source: Path, target: Path) -> tuple[Path, list[str]]:
    if source.is_file():
        return _listed(source)
    if source.is_dir():
        if target.resolve().is_relative_to(source.resolve()):
            # What is written now would be read again next time.
            raise BadInput(f"{target}: lies inside {source}; name a folder outside of it")
        root, names = source, list(_images(walk(source)))
    elif glob.has_magic(str(source)):
        root, names = _matching(source, target)
    else:
        raise BadInput(
            f"{source}: no such folder, file or glob; give a folder of images, one image, a list of "
            "names (.txt) or a pattern in quotes ('photos/*.jpg')"
        )
    if not names:
        raise BadInput(f"{source}: has no JPEG, PNG, WebP, TIFF or BMP images")
    return root, names


def _images(names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if name.lower().endswith(SUFFIXES))


def _matching(source: Path, target: Path) -> tuple[Path, list[str]]:
    """The part of a glob before its first wildcard, and the names below it that match the rest."""
    parts = source.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root, pattern = Path(*parts[:fixed]), parts[fixed:]
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder; check the pattern's part before its first wildcard")
    depth = None if "**" in pattern else len(pattern) - 1
    names = _images(walk(root, depth, leave_out=target))
    return root, [name for name in names if _matches(name.split("/"), pattern)]


def _matches(names: Sequence[str], pattern: Sequence[str]) -> bool:
    """As the shell's globstar: ``**`` is any number of folders, other wildcards stay within a name."""
    if not pattern or not names:
        return not pattern and not names
    if pattern[0] == "**":
        rest = pattern[1:]
        return not rest or any(_matches(names[i:], rest) for i in range(len(names)))
    return fnmatch.fnmatchcase(names[0], pattern[0]) and _matches(names[1:], pattern[1:])


def _listed(source: Path) -> tuple[Path, list[str]]:
    """The paths in a text file, relative to the folder that they have in common."""
    try:
        lines = source.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{source}: cannot be read as a list of paths in UTF-8 ({error})") from error
    if any("\0" in line for line in lines):
        raise BadInput(f"{source}: cannot be read as a list of paths in UTF-8 (it holds zero bytes)")
    here = Path(os.path.abspath(source.parent))  # noqa: PTH100 - resolve() would follow links
    paths = [os.path.normpath(here / line.strip()) for line in lines if line.strip()]
    paths = list(dict.fromkeys(paths))
    if not paths:
        raise BadInput(f"{source}: names no images; a list has one path a line")
    try:
        root = Path(os.path.commonpath([os.path.dirname(path) for path in paths]))  # noqa: PTH120
    except ValueError as error:
        raise BadInput(f"{source}: its paths have no folder in common ({error})") from error
    return root, [Path(path).relative_to(root).as_posix() for path in paths]


def _renamed(name: str, format: Format | None) -> str:
    stem, suffix = os.path.splitext(name)  # noqa: PTH122 - many, and as text
    if format is None or suffix.lower() in _SAME_FORMAT.get(format, (f".{format}",)):
        return name
    return f"{stem}.{format}"


def _refuse_unwritable(found: Plan) -> None:
    for _, output in found.names:
        if not output.lower().endswith(SUFFIXES):
            raise BadInput(
                f"{found.target / output}: cannot be written as a {Path(output).suffix or 'nameless'} file; "
                f"use {', '.join(SUFFIXES)}, or --format"
            )


def _refuse_collisions(found: Plan) -> None:
    first: dict[str, str] = {}
    for name, output in found.names:
        if first.setdefault(output, name) != name:
            raise BadInput(
                f"{found.source / first[output]} and {found.source / name}: both would become "
                f"{found.target / output}; rename one, or translate without --format"
            )


def _refuse_own_inputs(found: Plan) -> None:
    """No output may be an input; only where one folder lies in the other can that be."""
    source, target = found.source.resolve(), found.target.resolve()
    if not (source.is_relative_to(target) or target.is_relative_to(source)):
        return
    inputs = {str(source / name) for name, _ in found.names}
    for name, output in found.names:
        if str(target / output) in inputs:
            raise BadInput(
                f"{found.target / output}: would be overwritten by the translation of {found.source / name}; "
                "name another output"
            )
