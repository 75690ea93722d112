"""Whose pictures these are: what the card and the files say, what nobody says, what is there twice."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import Any

from cyclegan.datasets.cards import SPLITS, Card, MadeSource, domain_folder, list_cards
from cyclegan.datasets.licences import (
    UNKNOWN,
    expression,
    is_allowed,
    joined,
    licence_in,
    licence_of,
    names_terms,
    reserves_all,
    stated_licence,
)
from cyclegan.errors import BadInput
from cyclegan.images import SUFFIXES, BadImage, list_images, read_image, walk
from cyclegan.metadata.rights import Rights, Statement, rights_of

STYLE = "style"
ELSEWHERE = "elsewhere"  # in a domain's folder, and in no split
_NAMED = 10  # files in one line
_ON_USE = ("licence", "notice", "terms", "creator")  # kinds of statements that may forbid something
_NAMES = ("CC0-1.0", "CC-PDM-1.0")  # "CC0 Stock" is somebody's name, and gives nothing away
_THREADS = 4  # decoding lets go of Python's lock


@dataclass(frozen=True)
class Source:
    """One of those whom the pictures of a side come from, as the card has it."""

    side: str
    title: str
    stated: str
    licence: str | None
    attribution: str
    url: str

    @property
    def limits(self) -> bool:
        """Whether it is no licence but terms, beside which a licence in a picture does not count."""
        return self.licence is None and (names_terms(self.stated) or reserves_all(self.stated))

    @property
    def unclear(self) -> str:
        return f"side {self.side} ({self.title}) is under no licence that is known: {self.stated}"


@dataclass(frozen=True)
class File:
    """One picture: ``content`` is a digest of its pixels, None where it cannot be decoded."""

    path: Path
    content: str | None
    rights: Rights

    @cached_property
    def licence(self) -> str | None:
        """What the file itself names, all of it together; None if it names nothing."""
        found = set()
        for said in self.rights.statements:
            if said.kind in _ON_USE:
                licence = (licence_of if said.kind == "licence" else licence_in)(said.text)
                found |= {licence} - {None, *(_NAMES if said.kind == "creator" else ())}
        return joined(sorted(found)) or None

    @cached_property
    def unclear(self) -> Statement | None:
        """Terms, for licences, in a notice or beside a name, that are no licence that is known, or limit one.

        Nobody knows then what is allowed. The address of a page on the rights may stand beside a licence that
        is named.
        """
        fields = [said for said in self.rights.statements if said.kind == "licence"]
        named = any(licence_of(said.text) for said in fields)
        for said in fields:
            if licence_of(said.text) is None:
                if not (named and said.where.endswith("WebStatement")):
                    return said
            elif expression(said.text) is None and names_terms(said.text):
                return said
        for said in self.rights.statements:
            if said.kind in ("notice", "terms", "creator") and names_terms(said.text):
                return said
        return None

    @property
    def refusal(self) -> Statement | None:
        """What in the file keeps it from being trained on, whatever else is said."""
        for said in self.rights.statements:
            if said.kind == "mining" or (said.kind in _ON_USE and reserves_all(said.text)):
                return said
        return None

    @property
    def holders(self) -> list[str]:
        """Whom the file names: makers, else its notices of copyright."""
        for kind in ("creator", "notice"):
            names = [shorten(said.text, 2000) for said in self.rights.statements if said.kind == kind]
            if names:
                return list(dict.fromkeys(names))
        return []


@dataclass(frozen=True)
class Audit:
    """All that is known of pictures.

    ``splits`` are named as a domain's, "" of a bare folder. No card says anything of "elsewhere", nor of
    styleA and styleB, pictures that a training only takes the style from. ``expected`` are a card's counts.
    """

    name: str
    sources: tuple[Source, ...]
    splits: Mapping[str, Sequence[File]]
    expected: Mapping[str, int] = field(default_factory=dict)

    def stated(self, split: str) -> str | None:
        """The licence that the card gives to a split's side; None without one, or if it is in words."""
        licences = [source.licence for source in self._sources(split)]
        known = [licence for licence in licences if licence is not None]
        return joined(known) if known and len(known) == len(licences) else None

    def _sources(self, split: str) -> list[Source]:
        """What the card says of a split's pictures."""
        if split.startswith(STYLE):
            return []
        return [source for source in self.sources if source.side == split[-1:]]

    def licence(self, split: str, file: File) -> str | None:
        """Of one picture: the card's and its own, both of which hold; None where one of them is not known."""
        if file.unclear is not None or any(source.limits for source in self._sources(split)):
            return None
        return joined(filter(None, (self.stated(split), file.licence))) or None

    def objection(self, allowed: Sequence[str], skip_bad: bool = False) -> str | None:
        """Why these pictures are not only under ``allowed`` licences, in one line; None if they are.

        Args:
            skip_bad: say nothing of files that cannot be decoded; whoever decodes them does.
        """
        for source in self.sources:
            if source.licence is not None and not is_allowed(source.licence, allowed):
                return f"side {source.side} ({source.title}) is under {source.licence}, {_not_in(allowed)}"
            if source.limits:
                return source.unclear
        for split, file in self._all():
            if reason := self._reason(split, file, allowed):
                return reason
        bad = [file for files in self.splits.values() for file in files if file.content is None]
        if bad and not skip_bad:
            listed = "; ".join(f"{file.path}: {file.rights.unread[0]}" for file in bad[:_NAMED])
            more = f"; and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
            total = sum(map(len, self.splits.values()))
            return f"{len(bad)} of {total} files cannot be used; mend or remove them: {listed}{more}"
        return None

    def _reason(self, split: str, file: File, allowed: Sequence[str]) -> str | None:
        refusal, licence = file.refusal, self.licence(split, file)
        if refusal is not None:
            return f"{file.path}: its {refusal.where} says {shorten(refusal.text, 200)!r}"
        if file.rights.unread:
            return f"{file.path}: {file.rights.unread[0]}, so that its rights are not known"
        if (unclear := file.unclear) is not None:
            said = f"{shorten(unclear.text, 200)!r}, which is no licence that is known"
            return f"{file.path}: its {unclear.where} says {said}"
        if licence is None:
            stated = next((source for source in self._sources(split) if source.licence is None), None)
            if stated is not None:
                return stated.unclear
            domain = None if self.sources or split not in SPLITS else domain_at(file.path.parent.parent)
            remedy = f"{_remedy(file.path, domain)}; allowed: {_list(allowed)}"
            return f"{file.path}: says nothing of a licence, and {remedy}"
        if not is_allowed(licence, allowed):
            return f"{file.path}: is under {licence}, {_not_in(allowed)}"
        return None

    def remark(self) -> str | None:
        """One line where there are other pictures than the card counts, None else."""
        there = {split: len(self.splits.get(split, ())) for split in self.expected}
        differ = [f"{there[s]:,} in {s} instead of {n:,}" for s, n in self.expected.items() if there[s] != n]
        if not differ:
            return None
        return (
            f"not those that the card counts: {', '.join(differ)}; what it says may not hold for all of them"
        )

    def licences(self) -> dict[str, str]:
        """What each side is under, in one expression; words where the card has them and the files nothing."""
        found = {}
        for side in ("A", "B"):
            each = Counter(self.licence(split, file) for split, file in self._all() if split[-1:] == side)
            known = joined(sorted(licence for licence in each if licence is not None))
            unclear = [s.stated for s in self.sources if s.side == side and s.licence is None]
            rest = "; ".join(dict.fromkeys(unclear)) or UNKNOWN
            found[side] = known if None not in each else f"{known} AND {rest}" if known else rest
        return found

    def attribution(self) -> dict[str, str]:
        """Whom each side is by: the card's words, then the names in the files that those do not have."""
        found = {}
        for side in ("A", "B"):
            names = [source.attribution for source in self.sources if source.side == side]
            for split, file in self._all():
                if split[-1:] == side:
                    names += [name for name in file.holders if name not in names]
            found[side] = "; ".join(dict.fromkeys(names))
        return {side: text for side, text in found.items() if text}

    def duplicates(self) -> list[list[Path]]:
        """Files with the same pixels, whatever their names, formats and metadata; each group once."""
        groups: dict[str, list[Path]] = defaultdict(list)
        for _, file in self._all():
            groups[str(file.content)].append(file.path)
        return [paths for paths in groups.values() if len(paths) > 1]

    def unknown(self) -> list[Path]:
        """Pictures of which neither the card nor they themselves say a licence, or that say it unclearly."""
        return [file.path for split, file in self._all() if self.licence(split, file) is None]

    def refusals(self) -> list[tuple[Path, Statement]]:
        """Pictures that say that they must not be used so."""
        return [(file.path, file.refusal) for _, file in self._all() if file.refusal is not None]

    def unread(self) -> list[tuple[Path, str]]:
        """What could not be read, and why."""
        files = (file for files in self.splits.values() for file in files)
        return [(file.path, reason) for file in files for reason in file.rights.unread]

    def counts(self) -> dict[str, Counter[str]]:
        """Of each split, how many pictures are under which licence."""
        found: dict[str, Counter[str]] = {split: Counter() for split in self.splits}
        for split, file in self._all():
            found[split][self.licence(split, file) or UNKNOWN] += 1
        return found

    def holders(self) -> Counter[str]:
        """Whom the files themselves name, and how often."""
        return Counter(name for _, file in self._all() for name in file.holders)

    def _all(self) -> Iterable[tuple[str, File]]:
        """All that can be decoded; the others are used for nothing."""
        pairs = ((split, file) for split, files in self.splits.items() for file in files)
        return (pair for pair in pairs if pair[1].content is not None)

    def as_json(self) -> dict[str, Any]:
        """Plain values; of files those that say something, or of which something is missing."""
        return {
            "name": self.name,
            "sources": [vars(source) for source in self.sources],
            "images": {split: len(files) for split, files in self.splits.items()},
            "remark": self.remark(),
            "licences": {split: dict(count) for split, count in self.counts().items()},
            "holders": dict(self.holders()),
            "unknown": [str(path) for path in self.unknown()],
            "refusals": [{"file": str(path), **vars(said)} for path, said in self.refusals()],
            "unread": [{"file": str(path), "reason": reason} for path, reason in self.unread()],
            "duplicates": [[str(path) for path in group] for group in self.duplicates()],
            "files": [
                {"file": str(f.path), "licence": f.licence, "says": [vars(s) for s in f.rights.statements]}
                for _, f in self._all()
                if f.rights.statements
            ],
        }


def _not_in(allowed: Sequence[str]) -> str:
    return f"which is not among {_list(allowed)}"


def _list(allowed: Sequence[str]) -> str:
    return ", ".join(allowed)


def _remedy(path: Path, domain: str | None) -> str:
    if domain is not None:
        return f"a folder is taken without its card; 'cyclegan train {domain}' goes by it"
    write = "write it into the file (exiftool -XMP-cc:License=ADDRESS)"
    if path.suffix.lower() == ".bmp":
        write = f"a BMP has no place for one: save it as PNG or TIFF and {write}"
    return f"there is no card that does; {write}, or leave it out"


def audit_folder(folder: Path, card: Card | None = None, name: str | None = None) -> Audit:
    """Of all pictures under a folder, split as a domain's are if it is laid out so, or "elsewhere" in it.

    Raises:
        BadInput: no such folder, or no pictures in it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such domain or folder ('cyclegan data list' shows the domains)")
    splits = [split for split in SPLITS if (folder / split).is_dir()]
    paths = {split: list_images(folder / split) for split in splits} or {"": list_images(folder)}
    if splits and (others := list(_outside(folder, splits))):
        paths[ELSEWHERE] = others
    if not any(paths.values()):
        raise BadInput(f"{folder}: has no JPEG, PNG, WebP, TIFF or BMP images")
    return Audit(
        name or str(folder), sources_of(card), read_files(paths), {} if card is None else card.counts
    )


def _outside(folder: Path, splits: Sequence[str]) -> Iterator[Path]:
    for name in sorted(walk(folder)):
        if name.lower().endswith(SUFFIXES) and name.partition("/")[0] not in splits:
            yield folder / name


def domain_at(folder: Path) -> str | None:
    """The domain of a card whose prepared folder it is, if there is one."""
    given = folder.resolve()
    return next((domain for domain in list_cards() if domain_folder(domain).resolve() == given), None)


def sources_of(card: Card | None) -> tuple[Source, ...]:
    """Whose pictures a card says that there are; of a made domain, the originals', for both sides."""
    if card is None:
        return ()
    sides = (("A", card.a), ("B", card.b))
    if isinstance(card.source, MadeSource):
        entries = [(side, original) for side, _ in sides for original in card.source.originals]
    else:
        entries = list(sides)
    return tuple(
        Source(side, entry.title, entry.licence, stated_licence(entry.licence), entry.attribution, entry.url)
        for side, entry in entries
    )


def read_files(paths: Mapping[str, Sequence[Path]]) -> dict[str, list[File]]:
    """What the files of each split say."""
    with ThreadPoolExecutor(_THREADS) as pool:
        return {split: list(pool.map(_file, files)) for split, files in paths.items()}


def _file(path: Path) -> File:
    try:
        pixels = read_image(path).pixels
        data = path.read_bytes()
    except BadImage as error:
        return File(path, None, Rights(unread=(str(error).removeprefix(f"{path}: "),)))
    digest = hashlib.sha256(repr((pixels.shape, pixels.dtype.str)).encode())
    digest.update(pixels.tobytes())
    return File(path, digest.hexdigest(), rights_of(data))
