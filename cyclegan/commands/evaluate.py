"""cyclegan evaluate."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json


def evaluate(args: list[str]) -> int:
    def command(
        generator_or_run: Annotated[Path, tyro.conf.Positional],
        data: str | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Judge a generator on held-out images.

        Args:
            generator_or_run: folder of a saved generator, or of a run
            data: a domain's name, or a folder with trainA, trainB, testA, testB; default is what the
                generator was trained on
            direction: which generator of a run; default AtoB
            json: end with one line of JSON
        """
        return lambda: _evaluate(generator_or_run, data, direction, json)

    return parse(command, args, "cyclegan evaluate")()


def _evaluate(path: Path, data: str | None, direction: str | None, as_json: bool) -> int:
    from cyclegan.evaluation.command import evaluate_folder

    report = evaluate_folder(path, data, direction)
    if as_json:
        print_json(report.as_json())
    else:
        report.show()
    try:
        report.keep()
    except OSError as error:
        print(f"cyclegan evaluate: not kept in {report.generator} ({error.strerror})", file=sys.stderr)
    return 0
