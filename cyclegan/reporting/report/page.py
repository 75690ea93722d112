"""report.html from a run's folder: one file, and no request leaves it."""

import base64
import datetime
import hashlib
import shlex
import statistics
from collections.abc import Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cyclegan import __version__
from cyclegan.datasets.cards import describe_source
from cyclegan.datasets.licences import UNKNOWN, is_noncommercial, stated_licence
from cyclegan.files import replace_file
from cyclegan.reporting.report.curves import chart_data
from cyclegan.reporting.report.figures import curves, newest, shown
from cyclegan.reporting.report.folder import RunFolder, read_run, settings_of
from cyclegan.reporting.report.pictures import read_pictures

REPORT = "report.html"
ASSETS = Path(__file__).parent / "assets"
STYLES = ("uPlot.min.css", "page.css")
SCRIPTS = ("uPlot.iife.min.js", "page.js", "charts.js", "pictures.js")
# When everything can be used, in milliseconds after the page was asked for.
READY = "document.documentElement.dataset.ready = performance.now();"


def write_report(folder: Path) -> Path:
    """Build ``report.html`` of a run from its folder alone, and put it there in one piece.

    Raises:
        BadInput: there is no run, or one of its files does not hold.
    """
    run = read_run(folder)
    pictures = read_pictures(folder)
    metric_curves = [
        {"title": name, "lines": [{"name": line, "points": points} for line, points in lines.items()]}
        for name, lines in curves(run.evaluations).items()
    ]
    drawn = {
        "curves": chart_data(run.metrics),
        "metrics": metric_curves,
        "pictures": None if pictures is None else asdict(pictures),
    }
    html = render(
        "report.html.jinja",
        SCRIPTS,
        drawn,
        run=run,
        titles=run.titles,
        pictures=pictures,
        standing=standing(run),
        judgements=newest(run.evaluations),
        has_metric_curves=bool(metric_curves),
        settings=settings_of(run),
        throughput=throughput(run),
        commands=commands(run),
        plotting_licence=_asset("uPlot.LICENSE"),
        warnings=[*run.warnings, *_remarks(run)],
        source=None if run.about is None or run.about.card is None else describe_source(run.about.card),
    )
    target = folder / REPORT
    replace_file(target, html.encode())
    return target


def render(template: str, scripts: tuple[str, ...], drawn: dict[str, Any], **values: Any) -> str:
    """Fill a template; what comes from users is escaped, and only the package's own scripts may run."""
    code = "\n".join([*(_asset(name) for name in scripts), READY])
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    styles = "\n".join(_asset(name) for name in STYLES)
    return (
        _templates()
        .get_template(template)
        .render(
            **values,
            script=code,
            # The browser itself refuses any request, and any script but this one.
            policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
            f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
            styles=styles,
            drawn=drawn,
            version=__version__,
            written=datetime.datetime.now(datetime.timezone.utc),
        )
    )


@cache
def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters |= {"shown": shown, "time": _time, "duration": _duration, "count": "{:,}".format}
    return templates


@cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def standing(run: RunFolder) -> dict[str, str]:
    """Whether the run is over, as far as its folder says, in a word and in a sentence."""
    if run.about is None:
        return {"word": "unknown", "says": "This run was begun before runs kept note of their end."}
    if run.about.ended is not None:
        return {"word": "finished", "says": f"Ended {_time(run.about.ended)}."}
    return {
        "word": f"{run.about.done:.0%} done",
        "says": f"Not at its end: last heard of {_time(run.about.updated)}. While it trains, this file is "
        "written anew now and then: reload it. If nothing is training, the run can be resumed.",
    }


def throughput(run: RunFolder) -> dict[str, str]:
    speeds = [line["images_per_s"] for line in run.metrics if line.get("images_per_s")]
    found = {}
    if speeds:
        found["images of A a second"] = (
            f"{statistics.median(speeds):.3g} (median; {min(speeds):.3g} to {max(speeds):.3g})"
        )
    if run.about is not None and run.about.minutes:
        found["time"] = _duration(run.about.minutes)
    return found


def commands(run: RunFolder) -> list[tuple[str, str]]:
    """What to type to use the run; paths are as seen from where the report was made."""
    folder = _path(run.folder)
    found = []
    for direction, config in run.generators.items():
        name = {"AtoB": "G_AB", "BtoA": "G_BA"}[direction]
        source, target = config.get("source") or direction[0], config.get("target") or direction[-1]
        generators = run.folder / "generators"
        best = generators / "best" / name
        says = f"Translate a folder of pictures: {source} to {target}"
        if (best / "config.json").is_file():
            says += ", by the best generator of the run"
        else:
            best = generators / name
        found.append((says, f"cyclegan translate {_path(best)} photos/ translated/"))
    resume = f"cyclegan train --resume {folder}"
    if run.about is not None and run.about.ended is not None:
        found.append(("Train on, to twice the length", f"{resume} {' '.join(_longer(run))}"))
    else:
        found.append(("Resume the training", resume))
    found.append(("Judge it on held-out pictures", f"cyclegan evaluate {folder}"))
    found.append(("Make this file anew", f"cyclegan report {folder}"))
    return found


def _longer(run: RunFolder) -> Iterator[str]:
    """The limits that ended the run, doubled; the paper's 200 epochs where none was set."""
    limits = {name: run.config.get(name) for name in ("steps", "epochs", "images", "minutes")}
    if not any(limits.values()):
        limits["epochs"] = 200
    for name, value in limits.items():
        if value:
            yield f"--{name} {2 * value:g}" if isinstance(value, float) else f"--{name} {2 * value}"


def _path(path: Path) -> str:
    """Relative where it can be, so that the line works for a colleague in the same place."""
    resolved, here = path.resolve(), Path.cwd()
    return shlex.quote(str(resolved.relative_to(here) if resolved.is_relative_to(here) else path))


def _remarks(run: RunFolder) -> Iterator[dict[str, Any]]:
    """What a reader should know that no part of training warned of."""
    about = run.about
    if about is None:
        return
    if not (about.counts.get("testA") and about.counts.get("testB")):
        yield {"step": None, "message": "No pictures were held out on both sides: some of the pictures shown "
               "are training images, and look better than new ones will."}  # fmt: skip
    for side, licence in about.licences.items():
        if is_noncommercial(licence):
            yield {"step": None, "message": f"The training images of {side} are for non-commercial use."}
        elif stated_licence(licence) is None:
            said = "not known" if licence == UNKNOWN else f"not known ({licence})"
            yield {"step": None, "message": f"The licence of the training images of {side} is {said}; "
                   "make sure that you may use what is made from them."}  # fmt: skip


def _time(iso: str | datetime.datetime) -> str:
    when = datetime.datetime.fromisoformat(iso) if isinstance(iso, str) else iso
    # No line breaks inside a date.
    return f"{when:%Y-%m-%d %H:%M} UTC".replace("-", "\u2011").replace(" ", "\u00a0")


def _duration(minutes: float) -> str:
    if minutes < 1:
        return f"{minutes * 60:.0f} seconds"
    if minutes < 120:
        return f"{minutes:.0f} minutes"
    return f"{minutes / 60:.1f} hours"
