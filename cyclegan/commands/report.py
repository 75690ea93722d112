"""cyclegan report."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput


def report(args: list[str]) -> int:
    def command(run_or_runs: Annotated[Path, tyro.conf.Positional], json: bool = False) -> Callable[[], int]:
        """Make report.html of a run anew, or index.html of a folder of runs.

        Training writes the report itself; it is made from the run's folder alone.

        Args:
            run_or_runs: a run's folder, or one that holds runs, as runs/ or runs/<domain>/
            json: end with one line of JSON
        """
        return lambda: _report(run_or_runs, json)

    return parse(command, args, "cyclegan report")()


def _report(path: Path, as_json: bool) -> int:
    from cyclegan.reporting.report import is_run, write_index, write_report

    if not path.is_dir():
        raise BadInput(f"{path}: no such folder; name a run's, or one that holds runs")
    faults: list[str] = []
    try:
        if is_run(path):
            written = write_report(path)
        else:
            written, faults = write_index(path)
    except OSError as error:
        raise BadInput(f"{error.filename or path}: cannot be written ({error.strerror})") from error
    for fault in faults:
        print(f"cyclegan report: left out: {fault}", file=sys.stderr)
    if as_json:
        print_json({"written": str(written), "left_out": faults})
    else:
        print(written)
    return 1 if faults else 0
