"""The same picture on both sides of the line between training and held-out images."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan.datasets.fetch import sha256_of

if TYPE_CHECKING:
    from cyclegan.datasets.domain import Domain

SHOWN = 5  # pairs in one line


def duplicates(train: Iterable[Path], held_out: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pairs of a training and a held-out file with the same bytes; only equal sizes are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in train:
        if path.is_file():
            by_size[path.stat().st_size].append(path)
    known: dict[int, dict[str, Path]] = {}
    found = []
    for path in held_out:
        size = path.stat().st_size if path.is_file() else -1
        if size not in by_size:
            continue
        if size not in known:
            known[size] = {sha256_of(same): same for same in reversed(by_size[size])}
        twin = known[size].get(sha256_of(path))
        if twin is not None:
            found.append((twin, path))
    return found


def describe(pairs: Sequence[tuple[Path, Path]]) -> str:
    """One line that names them."""
    named = "; ".join(f"{twin} is {path}" for twin, path in pairs[:SHOWN])
    more = f"; and {len(pairs) - SHOWN} more" if len(pairs) > SHOWN else ""
    one = len(pairs) == 1
    count = "1 held-out image is" if one else f"{len(pairs)} held-out images are"
    return f"{count} in training too, so that figures on held-out images flatter: {named}{more}"


def of_domain(domain: "Domain") -> list[tuple[Path, Path]]:
    """On both sides of a domain."""
    return duplicates(domain.train_a, domain.test_a) + duplicates(domain.train_b, domain.test_b)
