"""How every program here begins: words in, one line and a status for those that cannot be used."""

import functools
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from cyclegan.arguments import parse
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput, Failed, shown
from cyclegan.recipes import explain, read_yaml, validated
from cyclegan.training.networks import build_networks

SMALLEST = 16  # pixels a side of a picture: VGG-19 halves it four times


def run(main: Callable[..., None]) -> None:
    """Call ``main`` with the command line's words; status 2 for bad ones, 1 for what fails on the way."""
    program = Path(sys.argv[0]).name

    @functools.wraps(main)
    def later(*args: Any, **kwargs: Any) -> Callable[[], None]:
        return functools.partial(main, *args, **kwargs)  # called when all words are known to be good

    try:
        parse(later, sys.argv[1:], program)()
    except ValidationError as error:
        _leave(f"{program}: {explain(error, TrainSettings)}", 2)
    except (BadInput, Failed) as error:
        _leave(f"{program}: {error}", 2 if isinstance(error, BadInput) else 1)


def _leave(message: str, status: int) -> None:
    print(shown(message), file=sys.stderr)
    sys.exit(status)


def at_least(least: float, **given: float | Iterable[float]) -> None:
    """Refuse what is less, each by its option's name; of options with several values an empty one, too."""
    for name, value in given.items():
        option = "--" + name.replace("_", "-")
        values = list(value) if isinstance(value, Iterable) else [value]
        if not values:
            raise BadInput(f"{option}: name one or more")
        for each in values:
            if not each >= least:  # NaN neither
                raise BadInput(f"{option}: must be {least:g} or more, not {each:g}")


def more_than_none(**given: float) -> None:
    """Refuse durations of nothing and less."""
    for name, value in given.items():
        if not 0 < value < float("inf"):
            raise BadInput(f"--{name.replace('_', '-')}: must be more than 0, not {value:g}")


def folders(**given: Path | None) -> None:
    """Refuse what is no folder; what is not given is no matter."""
    for name, folder in given.items():
        if folder is not None and not folder.is_dir():
            raise BadInput(f"--{name.replace('_', '-')}: {folder}: no such folder")


def read_recipe(path: Path | None) -> dict[str, Any]:
    """A recipe's tables, known to be right as they stand; of none, none."""
    if path is None:
        return {}
    given = read_yaml(path)
    validated(TrainSettings, given, path)
    return given


def buildable(values: Mapping[str, Any], source: str | Path) -> TrainSettings:
    """Settings whose networks can be built, which is seen before anything is measured.

    Raises:
        BadInput: the settings or the networks say why not.
    """
    settings = validated(TrainSettings, values, source)
    with torch.device("meta"):
        build_networks(settings)
    return settings
