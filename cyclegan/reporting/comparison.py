"""A comparison of runs as HTML (one file, nothing fetched), Markdown and JSON."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cyclegan.images import replace_file
from cyclegan.reporting.grids import sample_grid

NAMES = ("compare.html", "compare.md", "compare.json")
_ARROWS = {"lower": "↓", "higher": "↑", "neither": ""}

Cell = tuple[str, bool]  # its text, and whether it is the best of its row
Rows = list[list[Cell]]

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --quiet: #9ca3af; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
p { color: var(--quiet); max-width: 60ch; }
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
        found.append((title, ["metric", "inputs", "target's train", *columns], _figures(runs, direction)))
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
        row += [(f"{first[key]:.4g}" if shared else "by run", False) for key in ("inputs", "target_train")]
        for each in found:
            text = f"{each['value']:.4g}"
            if each["interval"] is not None:
                text += " ({:.4g} to {:.4g})".format(*each["interval"])
            if not shared:
                text += f" [inputs {each['inputs']:.4g}, train {each['target_train']:.4g}]"
            row.append((text, each["value"] == best))
        rows.append(row)
    return rows


def _plain(texts: Sequence[str]) -> list[Cell]:
    return [(text, False) for text in texts]


def _number(value: float | None) -> str:
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def _setting(value: Any) -> str:
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
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _html(facts: Mapping[str, Any], pictures: Mapping[str, bytes]) -> str:
    parts = [f"<p>{html.escape(_legend(facts))}</p>"]
    for title, head, rows in tables(facts):
        lines = ["<tr>" + "".join(f"<th>{html.escape(text)}</th>" for text in head) + "</tr>"]
        lines += ["<tr>" + "".join(f"<td>{_html_cell(*cell)}</td>" for cell in row) + "</tr>" for row in rows]
        parts.append(f"<h2>{html.escape(title)}</h2><div class=wide><table>{''.join(lines)}</table></div>")
    for direction, picture in pictures.items():
        data = base64.b64encode(picture).decode()
        alt = html.escape(_alt(facts, direction), quote=True)
        parts.append(f"<h2>{direction}: the same pictures</h2>")
        parts.append(f'<img alt="{alt}" src="data:image/png;base64,{data}">')
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<title>Runs compared</title><style>{_STYLE}</style><h1>Runs compared</h1>{''.join(parts)}</html>\n"
    )


def _html_cell(text: str, best: bool) -> str:
    return f"<strong>{html.escape(text)}</strong>" if best else html.escape(text)


def _alt(facts: Mapping[str, Any], direction: str) -> str:
    names = ", ".join(f"run {n} is {run['name']}" for n, run in enumerate(facts["runs"], 1))
    return f"Held-out pictures of {facts['data']}, {direction}, one row each, translated by each run: {names}"
