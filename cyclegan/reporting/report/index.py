"""index.html beside the runs: one line for each, with its newest pictures; a click on a heading sorts."""

import datetime
import statistics
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cyclegan.errors import BadInput
from cyclegan.files import replace_file
from cyclegan.reporting.report.figures import Figure, newest, shown
from cyclegan.reporting.report.folder import (
    CONFIG,
    EVALUATIONS,
    METRICS,
    WARNINGS,
    RunFolder,
    find_runs,
    read_run,
)
from cyclegan.reporting.report.page import REPORT, render, standing, write_report
from cyclegan.reporting.report.pictures import thumbnails

INDEX = "index.html"


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number that it is sorted by; words are sorted as words."""

    text: str
    number: float | None = None


@dataclass(frozen=True)
class Row:
    name: str
    link: str
    thumbs: list[tuple[str, str]]
    cells: list[Cell]


def write_index(folder: Path) -> tuple[Path, list[str]]:
    """Write ``index.html`` for the runs in ``folder``; reports that are missing or old are made first.

    Returns:
        Its path, and a line for each run that could not be read and is left out.

    Raises:
        BadInput: there is no run.
    """
    paths = find_runs(folder)
    if not paths:
        raise BadInput(f"{folder}: holds no run; a run is a folder with {CONFIG}, as `cyclegan train` writes")
    runs: list[RunFolder] = []
    faults = []
    for path in paths:
        try:
            runs.append(read_run(path))
            if _is_stale(path):
                write_report(path)
        except BadInput as error:
            faults.append(str(error))
    headings, rows = table(folder, sorted(runs, key=_began, reverse=True))
    html = render(
        "index.html.jinja", ("page.js", "index.js"), {}, headings=headings, rows=rows, faults=faults
    )
    target = folder / INDEX
    replace_file(target, html.encode())
    return target, faults


def table(folder: Path, runs: Sequence[RunFolder]) -> tuple[list[str], list[Row]]:
    """Headings and one row a run; figures that no run has get no column."""
    judged = {}
    for run in runs:
        for judgement in newest(run.evaluations):
            for figure in judgement.figures:
                key = (figure.name, judgement.direction)
                judged.setdefault(key, {})[run.folder] = figure
    # The kernel distance first: it is what runs are mostly chosen by.
    columns = sorted(judged, key=lambda column: (not column[0].startswith("kid"), column))
    headings = ["domain", "state", *(f"{name} {direction}" for name, direction in columns)]
    headings += ["steps", "images of A", "px", "batch", "images/s", "minutes"]
    rows = []
    for run in runs:
        cells = [Cell(run.domain), Cell(standing(run)["word"])]
        cells += [_metric(judged[column].get(run.folder)) for column in columns]
        cells += _facts(run)
        link = urllib.parse.quote((run.folder / REPORT).relative_to(folder).as_posix())
        rows.append(Row(run.folder.name, link, thumbnails(run.folder), cells))
    return headings, rows


def _metric(figure: Figure | None) -> Cell:
    if figure is None:
        return Cell("–")
    way = "" if figure.percent is None else f" ({figure.percent})"
    return Cell(shown(figure.value) + way, figure.value)


def _facts(run: RunFolder) -> list[Cell]:
    speeds = [line["images_per_s"] for line in run.metrics if line.get("images_per_s")]
    speed = statistics.median(speeds) if speeds else None
    minutes = run.about.minutes if run.about is not None else None
    size, batch = run.config.get("size"), run.config.get("batch_size")
    return [
        Cell(f"{run.step:,}", run.step),
        Cell(f"{run.images_seen:,}", run.images_seen),
        Cell(str(size), size),
        Cell(str(batch), batch),
        Cell(shown(speed), speed),
        Cell(shown(minutes), minutes),
    ]


def _began(run: RunFolder) -> datetime.datetime:
    if run.about is not None:
        return datetime.datetime.fromisoformat(run.about.began)
    written = (run.folder / CONFIG).stat().st_mtime
    return datetime.datetime.fromtimestamp(written, datetime.timezone.utc)


def _is_stale(run: Path) -> bool:
    report = run / REPORT
    if not report.is_file():
        return True
    sources = (METRICS, EVALUATIONS, WARNINGS, "generators/G_AB/metrics.json", "generators/G_BA/metrics.json")
    made = report.stat().st_mtime_ns
    return any((run / name).is_file() and (run / name).stat().st_mtime_ns > made for name in sources)
