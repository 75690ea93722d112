"""A foreign file's generator: its tensors found and named, without running any code that it carries."""

import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from cyclegan.artifacts.generator import (
    ConvertedFrom,
    GeneratorConfig,
    NetworkConfig,
    network_arguments,
    save_generator,
)
from cyclegan.artifacts.hub import FILES
from cyclegan.artifacts.recognition import Layer, Misfit, Wishes, list_layers, recognise, registered_shape
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput, nearest

Table = dict[str, Tensor]
_NESTING = 8  # tables within tables; a file may even hold itself


@dataclass(frozen=True)
class Labels:
    """What the user says of a generator whose file says nothing; what is not said stays unknown."""

    domain: str | None = None
    direction: str | None = None
    source: str | None = None
    target: str | None = None
    licence: str | None = None
    size: int | None = None


def convert(
    path: Path, folder: Path, wishes: Wishes, labels: Labels, key: str | None = None
) -> GeneratorConfig:
    """Write the generator of a foreign file as a generator's folder.

    Args:
        path: a state dict, or a checkpoint around it, saved by torch or as safetensors.
        folder: where it goes; a generator that is there already is replaced, anything else is not.
        wishes: what the tensors do not tell.
        labels: what the folder's config and model card shall say.
        key: which of several networks in the file, by its dotted name.

    Raises:
        BadInput: unreadable, carries code, has no generator that fits, or leaves something open.
    """
    _refuse_other_folders(folder)
    where, layers = find_generator(path, read_tables(path), key)
    try:
        found = recognise(layers, wishes)
    except Misfit as error:
        raise BadInput(f"{path}: {error}") from error
    channels = found.arguments["channels"]
    if channels not in (1, 3):
        raise BadInput(f"{path}: is for images of {channels} channels; generators here take 1 or 3")
    direction = labels.direction or _direction(f"{where} {path.name}")
    config = GeneratorConfig(
        network=NetworkConfig(name=found.name, arguments=network_arguments(found.network, found.arguments)),
        channels=channels,
        size=labels.size,
        multiple_of=found.network.multiple_of,
        domain=labels.domain or "unknown",
        direction=direction,
        source=labels.source or direction[0],
        target=labels.target or direction[-1],
        card_sha256=None,
        licences={"A": "unknown", "B": "unknown", "generator": labels.licence or "unknown"},
        seed=None,
        steps=None,
        images_seen=None,
        converted_from=ConvertedFrom(
            file=path.name, sha256=sha256_of(path), key=where or None, notes=found.notes
        ),
    )
    try:
        save_generator(folder, found.network.state_dict(), config)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({error.strerror})") from error
    return config


def _refuse_other_folders(folder: Path) -> None:
    """Saving replaces the whole folder, so only a generator's own may be there."""
    if folder.is_dir():
        try:
            others = {path.name for path in folder.iterdir()} - set(FILES)
        except OSError as error:
            raise BadInput(f"{folder}: cannot be read ({error.strerror})") from error
        if others:
            raise BadInput(f"{folder}: holds other files ({sorted(others)[0]}); name a new folder")
    elif folder.exists():
        raise BadInput(f"{folder}: is a file; name a folder for the generator")


def _direction(name: str) -> str:
    """G_B, G_B2A and G_BA map B to A in everybody's code; for other names, what goes in is A."""
    to_a = re.search(r"(?<![A-Z])G_?(B|BA|B2A|BtoA)(?![A-Za-z0-9])", name)
    return "BtoA" if to_a else "AtoB"


def read_tables(path: Path) -> dict[str, Table]:
    """The tables of tensors in a file, by their dotted place in it, on the CPU and in the file's order.

    A plain state dict is one table, at the place "".

    Raises:
        BadInput: not a file of tensors, damaged, or one that would run code.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise BadInput(f"{path}: is empty (0 bytes)")
    if head[8:] == b"{":
        try:
            return {"": load_file(path)}
        except SafetensorError as error:
            raise BadInput(f"{path}: is damaged ({error})") from error
    tables = dict(_tables(_load(path), "", _NESTING))
    if not tables:
        raise BadInput(f"{path}: holds no tensors")
    return tables


def _load(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of TorchScript and pickle versions; the error says more
            return torch.load(path, map_location="cpu", weights_only=True)
    # A damaged or hostile file fails inside the unpickler in any way there is.
    except Exception as error:
        said = str(error)
        code = re.search(r"(?:GLOBAL|global|class) ([\w.]+\.\w+)", said)
        remedy = "with the program that made it, save the generator's state_dict() alone"
        if code:
            raise BadInput(f"{path}: holds {code[1]}, which would run code; {remedy}") from error
        if "TorchScript" in said:
            raise BadInput(f"{path}: is a TorchScript program; {remedy}") from error
        raise BadInput(f"{path}: is damaged, or not a file of weights saved by torch") from error


def _tables(value: Any, place: str, depth: int) -> Iterator[tuple[str, Table]]:
    if not isinstance(value, Mapping) or depth == 0:
        return
    tensors = {str(key): inner for key, inner in value.items() if isinstance(inner, Tensor)}
    if tensors:
        yield place, tensors
    for key, inner in value.items():
        yield from _tables(inner, _join(place, str(key)), depth - 1)


def _join(place: str, name: str) -> str:
    return f"{place}.{name}" if place and name else place or name


def find_generator(path: Path, tables: dict[str, Table], key: str | None) -> tuple[str, list[Layer]]:
    """The one network in a file that fits a registered generator, and its dotted place there.

    Raises:
        BadInput: none does, or several do and ``key`` does not say which.
    """
    chosen = tables if key is None else _below(tables, key)
    if not chosen:
        names = sorted({_join(place, name).split(".")[0] for place in tables for name in tables[place]})
        has = ", ".join(names[:9])
        raise BadInput(f"--key: {path} has nothing named {key!r}{nearest(str(key), names)} (it has {has})")
    misfits: list[tuple[int, str]] = []
    found = [match for place, table in chosen.items() for match in _search(table, place, (), misfits)]
    whole = [match for match in found if not match.beside]
    if len(whole) == 1:
        return whole[0].place, whole[0].layers
    if len(found) > 1:
        raise BadInput(
            f"{path}: holds {len(found)} generators; say --key {' or --key '.join(m.place for m in found)}"
        )
    if found:
        place, beside = found[0].place, ", ".join(found[0].beside)
        raise BadInput(
            f"{path}: if {place} is a whole generator, and {beside} no part of it, say --key {place}"
        )
    raise BadInput(f"{path}: holds no generator that is known here ({max(misfits)[1]})")


def _below(tables: dict[str, Table], key: str) -> dict[str, Table]:
    """What lies at ``key``: whole tables, or a part of one."""
    chosen = {}
    for place, table in tables.items():
        if place == key or place.startswith(key + "."):
            chosen[place] = table
        elif not place or key.startswith(place + "."):
            part = _under(table, key.removeprefix(place).removeprefix("."))
            if part:
                chosen[key] = part
    return chosen


def _under(table: Table, prefix: str) -> Table:
    start = len(prefix) + 1
    return {name[start:]: tensor for name, tensor in table.items() if name.startswith(prefix + ".")}


@dataclass(frozen=True)
class _Match:
    place: str
    layers: list[Layer]
    beside: tuple[str, ...]  # what the same table has besides; perhaps more layers of the same network


def _search(
    table: Table, place: str, beside: tuple[str, ...], misfits: list[tuple[int, str]]
) -> Iterator[_Match]:
    """Walk down the dotted names of a table; what fits as a whole is not taken apart further.

    ``misfits`` gathers the number of weights and the reason of each that does not fit.
    """
    weights = sum(tensor.ndim == 4 for tensor in table.values())
    if weights < 2:
        misfits.append((weights, "it has no convolutions"))
        return
    try:
        yield _Match(place, _in_some_order(table), beside)
        return
    except Misfit as error:
        # Of a table and its parts, the table's own reason is the one to tell.
        if not any(weights == others for others, _ in misfits):
            misfits.append((weights, str(error)))
    children = list(dict.fromkeys(name.split(".")[0] for name in table))
    for child in children:
        others = tuple(other for other in children if other != child)
        yield from _search(_under(table, child), _join(place, child), beside + others, misfits)


def _in_some_order(tensors: Table) -> list[Layer]:
    """The layers in the order of the file, which is that of the program, or of their numbers.

    Safetensors are sorted by name, where 10 comes before 2.
    """
    by_number = dict(sorted(tensors.items(), key=lambda item: _natural(item[0])))
    try:
        layers = list_layers(tensors)
        registered_shape(layers)
    except Misfit:
        layers = list_layers(by_number)
        registered_shape(layers)
    return layers


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in name.split(".")]
