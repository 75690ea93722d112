"""cyclegan compare."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput


def compare(args: list[str]) -> int:
    def command(
        runs: Annotated[tuple[Path, ...], tyro.conf.Positional],
        data: str | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        output: Path = Path("comparison"),
        best: bool = False,
        images: int = 500,
        pictures: int = 8,
        json: bool = False,
    ) -> Callable[[], int]:
        """Put runs side by side: settings that differ, cost, figures, the same pictures by each.

        Args:
            runs: folders of runs, as runs/DOMAIN/RUN
            data: a domain's name, or a folder with trainA, trainB, testA, testB, that all are judged on;
                default is the domain of the runs
            direction: only this one; default those that all runs translate
            output: folder for compare.html, compare.md, compare.json and the grids
            best: take generators/best of each run, not its last generators
            images: judge on so many of the held-out images at most, evenly spread
            pictures: rows of the grids
            json: end with one line of JSON
        """
        return lambda: _compare(runs, data, direction, output, best, images, pictures, json)

    return parse(command, args, "cyclegan compare")()


def _compare(
    runs: tuple[Path, ...],
    data: str | None,
    direction: str | None,
    output: Path,
    best: bool,
    images: int,
    pictures: int,
    as_json: bool,
) -> int:
    if not runs:
        raise BadInput("name one run or more (cyclegan compare --help)")
    if images < 2 or pictures < 1:
        raise BadInput("--images takes two at least, --pictures one")
    from cyclegan.evaluation.compare import compare_runs
    from cyclegan.reporting.comparison import write_comparison

    found = compare_runs(runs, data, direction, best, images, pictures)
    try:
        page, text, _ = write_comparison(output, found.facts, found.grids)
    except OSError as error:
        raise BadInput(f"{output}: cannot be written ({error.strerror}); name another --output") from error
    if as_json:
        print_json({**found.facts, "output": str(output)})
    else:
        print(text.read_text(encoding="utf-8"))
        print(f"Written: {page}, {text.name}, compare.json")
    return 0
