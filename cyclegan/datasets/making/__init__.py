"""Domains that are made here, from pictures that installed packages carry."""

import functools
from collections.abc import Callable
from pathlib import Path

from cyclegan.datasets.cards import MadeSource
from cyclegan.datasets.making.contrasts import make_contrasts
from cyclegan.datasets.making.lowpoly import lowpoly
from cyclegan.datasets.making.photographs import make_from_photographs
from cyclegan.datasets.making.prints import INKS, printed
from cyclegan.datasets.making.strokes import strokes


def _from_lowpoly(source: MadeSource, target: Path) -> None:
    make_from_photographs(source, target, lowpoly)


def _from_strokes(source: MadeSource, target: Path) -> None:
    make_from_photographs(source, target, strokes)


def _from_prints(source: MadeSource, target: Path) -> None:
    make_from_photographs(source, target, *(functools.partial(printed, look=look) for look in INKS))


# What a card's `maker` may be; each fills trainA, trainB, testA and testB of an empty folder.
MAKERS: dict[str, Callable[[MadeSource, Path], None]] = {
    "lowpoly": _from_lowpoly,
    "strokes": _from_strokes,
    "prints": _from_prints,
    "contrasts": make_contrasts,
}


def make(source: MadeSource, target: Path) -> None:
    """Fill the four folders of a domain, the same files each time; of contrasts to a processor's rounding.

    Raises:
        BadInput: a package that carries the originals is not installed, or carries others.
    """
    MAKERS[source.maker](source, target)
