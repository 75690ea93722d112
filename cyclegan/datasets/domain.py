"""Which files a run trains on and which it holds out, from a card or from own folders."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.datasets.cards import Card, card_digest, load_card
from cyclegan.datasets.licences import UNKNOWN, joined
from cyclegan.datasets.prepare import prepare
from cyclegan.errors import BadInput
from cyclegan.images import list_images

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Clearance:
    """What an audit that had nothing to object to found: of each side the licences and whose pictures."""

    required: tuple[str, ...]
    licences: dict[str, str]
    attribution: dict[str, str]


@dataclass(frozen=True)
class Domain:
    """The files of both sides; ``test_a`` and ``test_b`` take no part in training."""

    name: str
    train_a: list[Path]
    train_b: list[Path]
    test_a: list[Path]
    test_b: list[Path]
    card: Card | None = None
    digest: str | None = None
    clearance: Clearance | None = None
    earlier_licences: dict[str, str] = field(default_factory=dict)  # of pictures that a run had before these
    earlier_attribution: dict[str, str] = field(default_factory=dict)

    @property
    def licences(self) -> dict[str, str]:
        """Licence of each side, from the card or, audited, from the pictures; else own ones have none."""
        found = self._licences
        for side, licence in self.earlier_licences.items():
            found[side] = UNKNOWN if UNKNOWN in (licence, found[side]) else joined((found[side], licence))
        return found

    @property
    def _licences(self) -> dict[str, str]:
        if self.clearance is not None:
            return dict(self.clearance.licences)
        if self.card is None:
            return {"A": UNKNOWN, "B": UNKNOWN}
        return {"A": self.card.a.licence, "B": self.card.b.licence}

    @property
    def attribution(self) -> dict[str, str]:
        """Whom the pictures of each side are by, as far as that is known."""
        found = self._attribution
        for side, names in self.earlier_attribution.items():
            found[side] = "; ".join(dict.fromkeys(filter(None, (found.get(side), names))))
        return found

    @property
    def _attribution(self) -> dict[str, str]:
        if self.clearance is not None:
            return dict(self.clearance.attribution)
        return {} if self.card is None else {"A": self.card.a.attribution, "B": self.card.b.attribution}

    @property
    def is_paired(self) -> bool:
        """Whether the test files match by name, so that there is ground truth."""
        return bool(self.test_a) and [p.stem for p in self.test_a] == [p.stem for p in self.test_b]


def open_domain(settings: TrainSettings) -> Domain:
    """Find the files that the settings name; a domain with a card is prepared first.

    Raises:
        BadInput: nothing named, a folder missing or empty, or a card that cannot be prepared.
    """
    data, name = settings.data, settings.domain
    if data.a is not None and data.b is not None:
        return _two_folders(name or "custom", data.a, data.b, data.held_out, settings.seed)
    if data.root is not None:
        return _four_folders(name or data.root.resolve().name, data.root)
    if name is None:
        raise BadInput(
            "no data: name a DOMAIN ('cyclegan data list'), or --data.root, or --data.a and --data.b"
        )
    return open_prepared(name)


def open_prepared(name: str) -> Domain:
    """The domain of a card, prepared now if it was not."""
    return _four_folders(name, prepare(name), load_card(name), card_digest(name))


def _four_folders(name: str, root: Path, card: Card | None = None, digest: str | None = None) -> Domain:
    train_a, train_b = _filled(root / "trainA"), _filled(root / "trainB")
    test_a, test_b = (list_images(root / s) if (root / s).is_dir() else [] for s in ("testA", "testB"))
    return Domain(name, train_a, train_b, test_a, test_b, card, digest)


def _filled(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; a domain has trainA and trainB (and testA and testB)")
    images = list_images(folder)
    if not images:
        raise BadInput(f"{folder}: has no JPEG, PNG, WebP, TIFF or BMP images")
    return images


def _two_folders(name: str, a: Path, b: Path, held_out: float, seed: int) -> Domain:
    train_a, test_a = _hold_out(a, held_out, seed, "A")
    train_b, test_b = _hold_out(b, held_out, seed, "B")
    return Domain(name, train_a, train_b, test_a, test_b)


def _hold_out(folder: Path, share: float, seed: int, side: str) -> tuple[list[Path], list[Path]]:
    images = _filled(folder)
    if len(images) < 2:
        raise BadInput(f"{folder}: has one image; two at least are needed, for one is held out")
    order = chance.permutation(seed, f"held out {side}", 0, len(images))
    count = min(max(1, round(share * len(images))), len(images) - 1)
    out = {int(i) for i in order[:count]}
    kept = [path for i, path in enumerate(images) if i not in out]
    return kept, [path for i, path in enumerate(images) if i in out]


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """As many files as asked, taken evenly from the list."""
    count = min(count, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


def spread_readable(paths: Sequence[Path], count: int, load: Callable[[Path], Loaded]) -> Iterator[Loaded]:
    """What ``load`` makes of as many files, taken evenly; the next in the list in place of a bad one.

    Raises:
        BadInput: none of them can be read.
    """
    chosen = dict.fromkeys(spread(paths, count))
    left = len(chosen)
    for path in itertools.chain(chosen, (path for path in paths if path not in chosen)):
        if left == 0:
            return
        try:
            loaded = load(path)
        except BadInput:
            continue
        left -= 1
        yield loaded
    if left == len(chosen):
        raise BadInput(f"{paths[0].parent}: no image can be read")
