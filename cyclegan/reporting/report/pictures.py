"""The run's sample grids, cut into pictures that a page can hold: small, encoded, the newest at full size."""

import base64
import functools
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cyclegan.reporting.grids import has_layout, read_grid

# Pictures take most of the page's size; the rest of a 10 MB report is curves and the plotting library.
BUDGET = 6_000_000  # characters
MOST_STEPS = 24
SMALL = 128  # pixels, in the history; before and after are shown at the size of training, up to LARGE
LARGE = 512
EXACT = 64

# The columns of each direction; "truth" is there where the held-out files are pairs.
COLUMNS = {
    "AtoB": {"input": "real_a", "output": "fake_b", "truth": "true b", "back": "rec_a", "identity": "idt_a"},
    "BtoA": {"input": "real_b", "output": "fake_a", "truth": "true a", "back": "rec_b", "identity": "idt_b"},
}
STILL = ("input", "truth")  # the same at every step

Uris = list[str]


@dataclass(frozen=True)
class History:
    """Held-out pictures of one direction as data URIs, one for each picture.

    Attributes:
        still: by column, what does not change: input and truth.
        moving: by column, for each step of ``Pictures.steps``: output, back, identity.
        large: the newest input, output and truth at the size of training.
    """

    still: dict[str, Uris]
    moving: dict[str, list[Uris]]
    large: dict[str, Uris]


@dataclass(frozen=True)
class Pictures:
    steps: list[int]  # those shown, oldest first
    total: int  # grids in the run's folder
    directions: dict[str, History]


def read_pictures(folder: Path) -> Pictures | None:
    """What ``samples/`` holds, thinned evenly until it fits the page; None where there is nothing."""
    grids = sample_steps(folder)
    chosen = _spread(list(grids), MOST_STEPS)
    while chosen:
        frames = [_small(grids[step], grids[step].stat().st_mtime_ns) for step in chosen]
        if len(chosen) == 1 or sum(_weight(frame) for frame in frames) <= BUDGET:
            break
        chosen = _spread(chosen, len(chosen) // 2)
    if not chosen:
        return None
    last = grids[chosen[-1]]
    large = _encoded(last, LARGE)
    directions = {}
    for direction, columns in COLUMNS.items():
        there = {role: name for role, name in columns.items() if name in large}
        if "input" not in there or "output" not in there:
            continue
        directions[direction] = History(
            still={role: frames[-1][name] for role, name in there.items() if role in STILL},
            moving={
                role: [frame[name] for frame in frames] for role, name in there.items() if role not in STILL
            },
            large={role: large[name] for role, name in there.items() if role in ("input", "output", "truth")},
        )
    return Pictures(chosen, len(grids), directions)


def sample_steps(folder: Path) -> dict[int, Path]:
    """The grids that say where their pictures lie, by step."""
    found = {}
    for path in sorted((folder / "samples").glob("step-*.png")):
        step = re.fullmatch(r"step-(\d+)", path.stem)
        if step and has_layout(path):
            found[int(step[1])] = path
    return found


def thumbnails(folder: Path, direction: str = "AtoB", count: int = 2) -> list[tuple[str, str]]:
    """The newest input and output of the first pictures, for a table of runs."""
    grids = sample_steps(folder)
    if not grids:
        return []
    newest = _encoded(grids[max(grids)], 64)
    columns = COLUMNS[direction]
    if columns["input"] not in newest or columns["output"] not in newest:
        return []
    return list(zip(newest[columns["input"]], newest[columns["output"]], strict=False))[:count]


@functools.lru_cache(maxsize=2 * MOST_STEPS)
def _small(path: Path, changed: int) -> dict[str, Uris]:
    """While training goes on the page is made anew with each grid; the older ones are encoded once."""
    return _encoded(path, SMALL)


def _encoded(path: Path, most: int) -> dict[str, Uris]:
    return {name: [data_uri(tile, most) for tile in tiles] for name, tiles in read_grid(path).items()}


def data_uri(image: Image.Image, most: int) -> str:
    """A picture as WebP inside an address; one larger than ``most`` pixels is made smaller first.

    Up to ``EXACT`` pixels nothing is lost: there, a lossy format would change colours at every edge.
    """
    if image.width > most:  # square, as all training images
        image = image.resize((most, most), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    # Where nothing is lost, quality is effort: this one is a fifth of the time of 90 for 7% more bytes.
    exact = image.width <= EXACT
    image.convert("RGB").save(
        buffer, "WEBP", lossless=exact, quality=40 if exact else 90, method=2 if exact else 4
    )
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def _weight(frame: dict[str, Uris]) -> int:
    moving = {name for columns in COLUMNS.values() for role, name in columns.items() if role not in STILL}
    return sum(len(uri) for name, uris in frame.items() if name in moving for uri in uris)


def _spread(steps: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of the steps, evenly spread, always with the first and the last."""
    if len(steps) <= max(count, 1):
        return list(steps)
    if count <= 1:
        return [steps[-1]]
    return [steps[round(i * (len(steps) - 1) / (count - 1))] for i in range(count)]
