"""The command line from types, by tyro; its complaints in one line."""

import contextlib
import inspect
import io
import itertools
import json
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from cyclegan.errors import BadInput, nearest
from cyclegan.recipes import explain, spelled_keys


def parse(
    command: Callable[..., Any], args: Sequence[str], prog: str, model: type[BaseModel] | None = None
) -> Any:
    """What ``command`` returns for the arguments that its signature names; none may be left over.

    It is called before words left over are refused, so it should return what is to be done, undone.

    Raises:
        BadInput: unknown, missing or wrong arguments.
    """
    result, left = parse_known(command, args, prog, model)
    if left:
        raise BadInput(f"there is no argument {left[0]!r} ({prog} --help)")
    return result


def parse_known(
    command: Callable[..., Any], args: Sequence[str], prog: str, model: type[BaseModel] | None = None
) -> tuple[Any, list[str]]:
    """As ``parse``, but words that no argument takes are returned; unknown options are refused."""
    import tyro

    complaints = io.StringIO()
    try:
        # --help goes to standard output, complaints to standard error.
        with contextlib.redirect_stderr(complaints):
            result, left = tyro.cli(command, args=list(args), prog=prog, return_unknown_args=True)
    except SystemExit as error:
        if error.code == 0:
            raise
        raise BadInput(_one_line(complaints.getvalue())) from error
    except ValidationError as error:
        raise BadInput(explain(error, model or BaseModel)) from error
    sys.stderr.write(complaints.getvalue())
    _refuse_unknown(left, command, model)
    return result, left


def _one_line(box: str) -> str:
    """tyro frames its complaints, with lines or in ASCII; the first part inside says what is wrong."""
    lines = [line.strip(" │|╭╮╰╯+─-") for line in box.splitlines()[1:]]  # the first holds a title
    parts = [list(group) for filled, group in itertools.groupby(lines, bool) if filled]
    return _plain(" ".join(parts[0]).replace(" .", ".")) if parts else box.strip()


# tyro's complaints, and what is made of their groups; choices in order, without the "None" of a default.
_COMPLAINTS: dict[str, Callable[..., str]] = {
    r"invalid choice (.+) for argument '(.+)'\. Expected one of \((.+)\)\.": (
        lambda value, option, choices: f"{option}: {value} is none of {_listed(choices)}"
    ),
    r"Error parsing (\S+): no type matching (.+) could be instantiated from \[(.+)\]\.?": (
        lambda option, types, value: f"{option}: takes {_kinds(types)}, not {value}"
    ),
    r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.+)": (
        lambda option, value: f"{option}: takes {_kinds('INT')}, not {value}"
    ),
    r"Error parsing (\S+): could not convert string to float: (.+)": (
        lambda option, value: f"{option}: takes {_kinds('FLOAT')}, not {value}"
    ),
    r"Error parsing settings\.(\S+): \d+ validation errors? for \w+ (\S+) (.+?) \[type=.*": (
        lambda group, key, complaint: f"{group}.{key}: {complaint}"
    ),
}


def _plain(complaint: str) -> str:
    """The usual complaints in the words that others have here."""
    for pattern, told in _COMPLAINTS.items():
        if found := re.fullmatch(pattern, complaint):
            return told(*found.groups())
    return complaint


def _listed(choices: str) -> str:
    return ", ".join(sorted({choice.strip("' ") for choice in choices.split(",")} - {"", "None"}))


def _kinds(types: str) -> str:
    words = {"INT": "a whole number", "FLOAT": "a number"}
    parts = [words.get(kind, kind.strip("{}").replace(",", ", ")) for kind in types.split("|")]
    return " or ".join(part for part in parts if part != "None")


def _refuse_unknown(left: Sequence[str], command: Callable[..., Any], model: type[BaseModel] | None) -> None:
    known = [*inspect.signature(command).parameters, *(spelled_keys(model) if model else ())]
    options = ["--" + key.replace("_", "-") for key in known]
    for word in left:
        if word.startswith("-"):
            option = word.split("=")[0]
            raise BadInput(f"unknown option {option}{nearest(option.replace('_', '-'), options)}")


def print_json(values: dict[str, Any]) -> None:
    """The last line of a command called with ``--json``."""
    print(json.dumps(values), flush=True)
