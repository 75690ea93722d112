"""A generator on disk: a folder with model.safetensors, config.json and README.md; nothing pickled."""

import contextlib
import inspect
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, field_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cyclegan import __version__
from cyclegan.artifacts.model_card import write_card
from cyclegan.config import LARGEST_SIZE, Frozen
from cyclegan.datasets.scale import Scale
from cyclegan.errors import BadInput
from cyclegan.files import flush
from cyclegan.networks import build
from cyclegan.recipes import explain

WEIGHTS, CONFIG = "model.safetensors", "config.json"
MOST = 4096  # features, layers, pixels of a stride: past it a config is a trap, not a network
Colour = Annotated[int, Field(ge=0, le=255)]


class NetworkConfig(Frozen):
    name: str
    arguments: dict[str, str | int | float | bool]

    @field_validator("arguments")
    @classmethod
    def _in_proportion(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name, value in arguments.items():
            if isinstance(value, int | float) and not 0 <= value <= MOST:
                raise ValueError(f"network.arguments.{name}: must be 0 to {MOST}, not {value}")
        return arguments


class ConvertedFrom(Frozen):
    """Where a generator that was not trained here comes from."""

    file: str
    sha256: str
    key: str | None  # the network's name inside the file, when there were others
    notes: tuple[str, ...]  # what its tensors do not tell and was taken as given


class GeneratorConfig(Frozen):
    """config.json: how to build the network, what it expects, and what it rests on.

    What nobody knows of a generator from elsewhere is null.
    """

    format: Literal["cyclegan-generator/1"] = "cyclegan-generator/1"
    network: NetworkConfig
    channels: Literal[1, 3]
    size: Annotated[int, Field(ge=1, le=LARGEST_SIZE)] | None
    multiple_of: int = Field(ge=1, le=MOST)
    value_range: tuple[Literal[-1], Literal[1]] = (-1.0, 1.0)
    background: tuple[Colour, Colour, Colour] = (255, 255, 255)
    scale: Scale | None = None  # that training saw pictures at
    domain: str
    direction: Literal["AtoB", "BtoA"]
    method: Literal["cyclegan", "cut", "fastcut"] = "cyclegan"
    source: str
    target: str
    card_sha256: str | None
    licences: dict[str, str]
    attribution: dict[str, str] = Field({})
    seed: int | None
    steps: int | None
    images_seen: int | None
    converted_from: ConvertedFrom | None = None
    cyclegan_version: str = __version__


def save_generator(folder: Path, state: dict[str, Tensor], config: GeneratorConfig) -> None:
    """Write the artifact, whole or not at all; an older one at the same place is replaced."""
    with new_folder(folder) as partial:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
        save_file(tensors, partial / WEIGHTS, metadata={"format": "pt"})
        (partial / CONFIG).write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")
        write_card(partial, config)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder beside ``target`` that takes its place when the block ends well."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.part")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in (*partial.iterdir(), partial):
            flush(path)  # before the rename says that it is there
        if target.exists():
            target.rename(old)
        partial.rename(target)
        flush(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(old, ignore_errors=True)


def read_config(folder: Path) -> GeneratorConfig:
    """What a saved generator says of itself.

    Raises:
        BadInput: not a generator's folder, a file missing, or a config that does not hold.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; a generator is a folder with {WEIGHTS} and {CONFIG}")
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            raise BadInput(f"{folder}: has no {name}; a generator is a folder with {WEIGHTS} and {CONFIG}")
    try:
        return GeneratorConfig.model_validate_json((folder / CONFIG).read_bytes())
    except ValidationError as error:
        raise BadInput(f"{folder / CONFIG}: {explain(error, GeneratorConfig)}") from error


def load_generator(folder: Path) -> tuple[nn.Module, GeneratorConfig]:
    """The network with its weights, in evaluation mode on the CPU, and its config.

    Raises:
        BadInput: as ``read_config``, or weights that are damaged or do not fit the network.
    """
    config = read_config(folder)
    _refuse_other_shapes(folder, config)
    network = build("generator", config.network.name, config.network.arguments)
    weights = load_file(folder / WEIGHTS)
    if not all(bool(tensor.isfinite().all()) for tensor in weights.values()):
        raise BadInput(f"{folder / WEIGHTS}: holds NaN or infinite weights; it was damaged when it was saved")
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False), config


def _refuse_other_shapes(folder: Path, config: GeneratorConfig) -> None:
    """Compare what the config names with what the file says of itself, before either takes memory."""
    path = folder / WEIGHTS
    try:
        with safe_open(path, "pt") as file:
            found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise BadInput(f"{path}: is damaged ({error})") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        with torch.device("meta"):
            network = build("generator", config.network.name, config.network.arguments)
    except (RuntimeError, ValueError, TypeError, ZeroDivisionError, OverflowError) as error:
        reason = " ".join(str(error).split())
        raise BadInput(f"{folder / CONFIG}: network.arguments make no network ({reason})") from error
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if network_arguments(network, config.network.arguments)["channels"] != config.channels:
        raise BadInput(f"{folder / CONFIG}: channels: is {config.channels}, but the network's are others")
    if network.multiple_of != config.multiple_of:
        found_there = f"multiple_of: is {network.multiple_of} for this network, not {config.multiple_of}"
        raise BadInput(f"{folder / CONFIG}: {found_there}")
    for name in sorted({*expected, *found}):
        if expected.get(name) != found.get(name):
            is_here, should = (
                "x".join(map(str, shapes[name])) or "one number" if name in shapes else "missing"
                for shapes in (found, expected)
            )
            raise BadInput(f"{path}: does not fit {CONFIG} ({name} is {is_here}, by {CONFIG} it is {should})")


def network_arguments(network: nn.Module, chosen: dict[str, Any]) -> dict[str, Any]:
    """All constructor arguments of ``network``: the chosen ones over its defaults."""
    parameters = inspect.signature(type(network)).parameters
    return {name: chosen.get(name, parameter.default) for name, parameter in parameters.items()}
