"""A comparison of runs as HTML (one file, nothing fetched), Markdown and JSON."""

import base64
import html
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cyclegan.files import replace_file
from cyclegan.reporting.grids import sample_grid

NAMES = ("compare.html", "compare.md", "compare.json")
_ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}

Cell = tuple[str, bool]  # its text, of one line or more, and whether it is the best of its row
Rows = list[list[Cell]]

# Colours are those of a run's report. A metric's name stays in sight while its figures are scrolled.
_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf8; --ink: #1d1f23; --quiet: #5f6670; --line: #dcdfe4; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15171a; --ink: #e8e9eb; --quiet: #a0a7b1; --line: #363b42; }
}
body { font: 16px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 1.5rem auto; padding: 0 1.25rem;
  background: var(--paper); color: var(--ink); }
h1 { font-size: 1.9rem; margin: 0; } h2 { font-size: 1.3rem; line-height: 1.25; margin: 1.8rem 0 .4rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem 1rem .3rem 0; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; font-weight: 400; }
thead th, td strong { font-weight: 700; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--paper); }
small { display: block; color: var(--quiet); white-space: nowrap; }
.grids { display: flex; flex-wrap: wrap; gap: 0 1.5rem; } .grids section { max-width: 100%; }
img { max-width: 100%; height: auto; border-radius: 6px; }
p { color: var(--quiet); max-width: 72ch; }
@media (max-width: 40rem) { th, td { font-size: .88rem; padding-right: .7rem; }
  th:first-child { min-width: 8rem; } }
"""


def write_comparison(
    folder: Path, facts: Mapping[str, Any], grids: Mapping[str, Sequence[tuple[str, Tensor]]]
) -> list[Path]:
    """Write ``compare.html``, ``compare.md`` with ``grid-<direction>.png``, and ``compare.json``.

    Args:
        facts: as ``evaluation.compare`` gives them.
        grids: by direction, columns (heading, images (N, C, H, W)); sizes may differ.

    Returns:
        The three files.
    """
    pictures = {direction: _grid(columns) for direction, columns in grids.items()}
    for direction, picture in pictures.items():
        replace_file(folder / f"grid-{direction}.png", picture)
    texts = (_html(facts, pictures), _markdown(facts, pictures), json.dumps(facts, indent=2) + "\n")
    paths = [folder / name for name in NAMES]
    for path, text in zip(paths, texts, strict=True):
        replace_file(path, text.encode())
    return paths


def _grid(columns: Sequence[tuple[str, Tensor]]) -> bytes:
    side = max(images.shape[-1] for _, images in columns)
    sized = [
        (heading, images.cpu() if images.shape[-1] == side else F.interpolate(images.cpu(), (side, side)))
        for heading, images in columns
    ]
    buffer = io.BytesIO()
    picture: Image.Image = sample_grid([sized])
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def tables(facts: Mapping[str, Any]) -> list[tuple[str, list[str], Rows]]:
    """(title, head, rows) of each table, as text."""
    runs = facts["runs"]
    columns = [f"run {number}" for number in range(1, len(runs) + 1)]
    cost = [
        ("name", [run["name"] for run in runs]),
        ("steps", [_number(run["steps"]) for run in runs]),
        ("images seen", [_number(run["images_seen"]) for run in runs]),
        ("minutes", [_number(run["minutes"]) for run in runs]),
        ("images/s", [_number(run["images_per_s"]) for run in runs]),
    ]
    found = [("Runs", ["", *columns], [[(name, False), *_plain(cells)] for name, cells in cost])]
    settings = [
        [(key, False), *_plain([_setting(run["settings"][key]) for run in runs])]
        for key in facts["settings_that_differ"]
    ]
    if settings:
        found.append(("Settings that differ", ["setting", *columns], settings))
    for direction in runs[0]["figures"]:
        images = runs[0]["figures"][direction]["images"]
        title = f"{direction}: figures on {images} held-out images of {facts['data']}"
        found.append((title, ["metric", *columns, "inputs", "target's train"], _figures(runs, direction)))
    return found


def _figures(runs: Sequence[Mapping[str, Any]], direction: str) -> Rows:
    by_run = [run["figures"][direction]["metrics"] for run in runs]
    rows: Rows = []
    for name, first in by_run[0].items():
        found = [metrics[name] for metrics in by_run if name in metrics]
        if len(found) < len(runs):
            continue
        pick = {"lower": min, "higher": max}.get(first["better"])
        best = pick(each["value"] for each in found) if pick and len(found) > 1 else None
        anchors = {(each["inputs"], each["target_train"]) for each in found}
        # Generators of other sizes see the images at other sizes, and the anchors are others.
        shared = len(anchors) == 1
        row: list[Cell] = [(f"{name} {_ARROWS[first['better']]}".strip(), False)]
        for each in found:
            text = f"{each['value']:.4g}"
            if each["interval"] is not None:
                text += "\n({:.4g} to {:.4g})".format(*each["interval"])
            if not shared:
                text += f"\n[inputs {each['inputs']:.4g}, train {each['target_train']:.4g}]"
            row.append((text, each["value"] == best))
        row += [(f"{first[key]:.4g}" if shared else "by run", False) for key in ("inputs", "target_train")]
        rows.append(row)
    return rows


def _plain(texts: Sequence[str]) -> list[Cell]:
    return [(text, False) for text in texts]


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _setting(value: Any) -> str:
    if value is None:
        return "not set"
    return value if isinstance(value, str) else json.dumps(value)


def _legend(facts: Mapping[str, Any]) -> str:
    which = "generators/best" if facts["best"] else "the last generators"
    return (
        f"Of each run {which}, judged anew on the same images. Inputs: the untranslated inputs in the "
        "translations' place, which is what doing nothing scores. Target's train: real training images of "
        "the target in their place. ↓ lower is better, ↑ higher. In brackets the 95 % interval: where two "
        f"overlap, the runs may not differ. {facts['note']}"
    )


def _markdown(facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    parts = ["# Runs compared", _legend(facts)]
    for title, head, rows in tables(facts):
        lines = [_markdown_row(head), "|" + "---|" * len(head)]
        lines += [_markdown_row([f"**{text}**" if best else text for text, best in row]) for row in rows]
        parts += [f"## {title}", "\n".join(lines)]
    for direction in pictures:
        parts += [f"## {direction}: the same pictures", f"![{_alt(facts, direction)}](grid-{direction}.png)"]
    return "\n\n".join(parts) + "\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _html(facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    parts = [f"<p>{html.escape(_legend(facts))}</p>"]
    for title, head, rows in tables(facts):
        columns = "".join(f"<th scope=col>{html.escape(text)}</th>" for text in head)
        lines = [f"<thead><tr>{columns}</tr></thead>", *map(_html_row, rows)]
        # With a tab stop, so that the arrow keys scroll it where it is wider than the page.
        table = f"<div class=wide tabindex=0><table>{''.join(lines)}</table></div>"
        parts.append(f"<h2>{html.escape(title)}</h2>{table}")
    parts.append("<div class=grids>")
    for direction, picture in pictures.items():
        data = base64.b64encode(picture).decode()
        alt = html.escape(_alt(facts, direction), quote=True)
        image = f'<img alt="{alt}" src="data:image/png;base64,{data}">'
        parts.append(f"<section><h2>{direction}: the same pictures</h2>{image}</section>")
    parts.append("</div>")
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>Runs compared</title><style>{_STYLE}</style><h1>Runs compared</h1>{''.join(parts)}</html>\n"
    )


def _html_row(row: Sequence[Cell]) -> str:
    # Long names of metrics and settings may break after an underscore or a dot.
    name = re.sub(r"([_.])", r"\1<wbr>", html.escape(row[0][0]))
    return f"<tr><th scope=row>{name}</th>{''.join(_html_cell(*cell) for cell in row[1:])}</tr>"


def _html_cell(text: str, best: bool) -> str:
    value, *below = (html.escape(line) for line in text.split("\n"))
    shown = f"<strong>{value}</strong>" if best else value
    return f"<td>{shown}{''.join(f'<small>{line}</small>' for line in below)}</td>"


def _alt(facts: Mapping[str, Any], direction: str) -> str:
    names = ", ".join(f"run {n} is {run['name']}" for n, run in enumerate(facts["runs"], 1))
    return f"Held-out pictures of {facts['data']}, {direction}, one row each, translated by each run: {names}"
