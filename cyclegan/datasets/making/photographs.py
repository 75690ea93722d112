"""A domain of photographs (A) and of what renderers make of other photographs (B)."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from cyclegan import chance
from cyclegan.datasets.cards import SPLITS, MadeSource
from cyclegan.datasets.making.originals import original_file
from cyclegan.images import read_image, write_image

TILE = 128  # pixels; training crops are smaller
STEP = 32  # pixels between the tops of two training tiles of one strip

Render = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def make_from_photographs(source: MadeSource, target: Path, *renders: Render) -> None:
    """Cut photographs and their renderings into tiles.

    Training photographs fall into upright strips, by turns for A and for B, so that the two sides show
    the same kinds of things and not one pixel in common, but for what a stroke or a triangle at a border
    takes from across it, some pixels wide. Those held out give pairs: a tile and its
    rendering under the same name.

    Args:
        renders: (H, W, 3) uint8 and chance to (H, W, 3) uint8; of several each tile is of one, by turns.
    """
    for split in SPLITS:
        (target / split).mkdir()
    for number, original in enumerate(source.originals):
        photograph = read_image(original_file(original)).pixels
        rendered = [
            render(photograph, chance.rng(source.seed, f"render {source.maker}", number))
            for render in renders
        ]
        turns = itertools.cycle(rendered)
        stem = Path(original.file).stem
        if original.held_out:
            for top, left in _grid(photograph):
                _save(photograph, top, left, target / "testA", stem)
                _save(next(turns), top, left, target / "testB", stem)
            continue
        for strip, left in enumerate(_starts(photograph.shape[1], TILE)):
            side = "AB"[(strip + number) % 2]
            for top in _starts(photograph.shape[0], STEP):
                picture = photograph if side == "A" else next(turns)
                _save(picture, top, left, target / f"train{side}", stem)


def _starts(length: int, step: int) -> range:
    return range(0, length - TILE + 1, step)


def _grid(picture: np.ndarray) -> Iterator[tuple[int, int]]:
    height, width = picture.shape[:2]
    for top in _starts(height, TILE):
        for left in _starts(width, TILE):
            yield top, left


def _save(picture: np.ndarray, top: int, left: int, folder: Path, stem: str) -> None:
    tile = picture[top : top + TILE, left : left + TILE]
    write_image(folder / f"{stem}-{top:04d}-{left:04d}.png", np.ascontiguousarray(tile))
