"""The command line from types, by tyro; its complaints in one line."""

import contextlib
import inspect
import io
import itertools
import json
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
    return " ".join(parts[0]).replace(" .", ".") if parts else box.strip()


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
