"""Held-out images beside their translations, and what plain pixels say of each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cyclegan.images import read_image, resize, to_pil
from cyclegan.losses import l1, psnr

COLUMNS = (
    "file", "input", "translation", "truth",
    "change_l1", "colour_shift", "truth_l1", "truth_psnr", "input_truth_l1",
    "vgg19_distance_to_input", "vgg19_distance_to_truth",
)  # fmt: skip
FIGURES = COLUMNS[4:]
Distance = Callable[[np.ndarray, np.ndarray], float]  # of two pictures (H, W, C), uint8 or uint16
MAX_SIDE = 256  # of a picture in a table


@dataclass(frozen=True)
class Comparison:
    """Files of one held-out image; ``truth`` where the test files are pairs."""

    source: Path
    translated: Path
    truth: Path | None = None


def held_out_rows(
    comparisons: Sequence[Comparison],
    channels: int,
    background: tuple[int, int, int],
    perceptual: Distance | None = None,
) -> Iterator[list]:
    """A row of ``COLUMNS`` for each: the pictures, and figures of values in [0, 1].

    ``change_l1``: mean absolute difference of translation and input. ``colour_shift``: distance of their
    mean colours. ``truth_l1`` and ``truth_psnr`` (dB): translation against truth; ``input_truth_l1``: what
    the input itself scores, so that a translation that is worse than none shows. None without truth. The
    last two are ``perceptual`` distances of the translation; None without it.
    """
    for item in comparisons:
        source = _pixels(item.source, channels, background)
        translated = _pixels(item.translated, channels, background, like=source)
        shift = _values(translated).mean((0, 1)) - _values(source).mean((0, 1))
        figures: list[float | None] = [_of_two(l1, translated, source), float(np.linalg.norm(shift))]
        truth = None
        if item.truth is None:
            figures += [None, None, None]
        else:
            truth = _pixels(item.truth, channels, background, like=translated)
            figures += [_of_two(l1, translated, truth), _of_two(psnr, translated, truth)]
            figures.append(_of_two(l1, source, truth))
        for other in (source, truth):
            known = perceptual is not None and other is not None
            figures.append(perceptual(translated, other) if known else None)
        pictures = (None if pixels is None else _thumbnail(pixels) for pixels in (source, translated, truth))
        yield [item.source.name, *pictures, *figures]


def means(rows: Sequence[Sequence]) -> dict[str, float]:
    """Each figure over all rows that have it."""
    found = {}
    for number, name in enumerate(COLUMNS):
        values = [row[number] for row in rows if row[number] is not None]
        if name in FIGURES and values:
            found[name] = float(np.mean(values))
    return found


def _pixels(
    path: Path, channels: int, background: tuple[int, int, int], like: np.ndarray | None = None
) -> np.ndarray:
    """(H, W, C), uint8 or uint16, at another picture's size where one is given."""
    pixels = read_image(path, channels, background).pixels
    return pixels if like is None or pixels.shape == like.shape else resize(pixels, *like.shape[:2])


def _values(pixels: np.ndarray) -> np.ndarray:
    """In [0, 1], of any bit depth."""
    return pixels.astype(np.float64) / np.iinfo(pixels.dtype).max


def _of_two(measure: Callable[[Tensor, Tensor], Tensor], x: np.ndarray, y: np.ndarray) -> float:
    x, y = (torch.from_numpy(_values(pixels))[None] for pixels in (x, y))
    return float(measure(x, y))


def _thumbnail(pixels: np.ndarray) -> Image.Image:
    picture = to_pil(np.rint(_values(pixels) * 255).astype(np.uint8))
    picture.thumbnail((MAX_SIDE, MAX_SIDE))
    return picture
