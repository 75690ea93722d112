"""What a picture's file says of its rights: XMP, IPTC, EXIF, PNG's texts, C2PA."""

import json
import xml.etree.ElementTree as ET
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cyclegan.metadata import tags
from cyclegan.metadata.credentials import (
    CredentialsError,
    NotInstalled,
    ingredient_holds,
    read_store,
    seems_signed,
)
from cyclegan.metadata.packets import packets_of

Kind = Literal["licence", "notice", "terms", "creator", "mining"]
_LONGEST = 100_000  # characters of one statement; whole licences have been put into such fields

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
# By prefix and name as XMP has them; JSON-LD in C2PA has the names with their usual prefixes.
_PROPERTIES: dict[str, Kind] = {
    "cc:license": "licence",
    "xmpRights:UsageTerms": "licence",
    "xmpRights:WebStatement": "licence",
    "dcterms:license": "licence",
    "plus:OtherConstraints": "licence",
    "dc:rights": "notice",
    "dcterms:rights": "notice",
    "tiff:Copyright": "notice",
    "exif:Copyright": "notice",
    "photoshop:Instructions": "terms",
    "dc:creator": "creator",
    "xmpRights:Owner": "creator",
    "cc:attributionName": "creator",
    "photoshop:Credit": "creator",
    "tiff:Artist": "creator",
    "exif:Artist": "creator",
    "plus:CopyrightOwnerName": "creator",
    "plus:ImageCreatorName": "creator",
    "plus:DataMining": "mining",
}
_NAMESPACES = {
    "http://creativecommons.org/ns#": "cc",
    "http://web.resource.org/cc/": "cc",  # until 2008
    "http://ns.adobe.com/xap/1.0/rights/": "xmpRights",
    "http://purl.org/dc/terms/": "dcterms",
    "http://purl.org/dc/elements/1.1/": "dc",
    "http://ns.adobe.com/tiff/1.0/": "tiff",
    "http://ns.adobe.com/exif/1.0/": "exif",
    "http://ns.adobe.com/photoshop/1.0/": "photoshop",
    "http://ns.useplus.org/ldf/xmp/1.0/": "plus",
}
_DECLARATIONS = ("<!DOCTYPE", "<!ENTITY")
_REMOTE = "dcterms:provenance"  # C2PA: the address of a manifest that is not in the file
_EXIF: dict[int, tuple[str, Kind]] = {33432: ("Copyright", "notice"), 315: ("Artist", "creator")}
_EXIF_TEXT = (1, 2, 6, 7, 129)  # types of one byte each; text is of type 2, since EXIF 3.0 also of 129
# IIM 4.2, record 2
_IPTC: dict[tuple[int, int], tuple[str, Kind]] = {
    (2, 116): ("CopyrightNotice", "notice"),
    (2, 40): ("SpecialInstructions", "terms"),
    (2, 80): ("By-line", "creator"),
    (2, 110): ("Credit", "creator"),
}
_PNG: dict[str, Kind] = {"Copyright": "notice", "Author": "creator", "Disclaimer": "terms"}
_SCHEMA: dict[str, Kind] = {"license": "licence", "copyrightNotice": "notice", "author": "creator"}
# Of the words that PLUS has for plus:DataMining those that forbid nothing; "prohibited" has many shades, of
# which some refer to terms that stand elsewhere.
_ALLOW = ("DMI-ALLOWED", "DMI-UNSPECIFIED")
# C2PA 1.4 §17.3, CAWG training and data mining 1.1: what a network that makes pictures is trained under
_TRAINING_USES = ("ai_training", "ai_generative_training", "data_mining")


@dataclass(frozen=True)
class Statement:
    """One thing that a file says.

    Args:
        where: the standard and the field, as "XMP dc:rights".
        kind: a licence; a notice of copyright; terms, words on the use that name nobody; who made it or holds
            it; "mining": training is not allowed.
        text: what stands there.
    """

    where: str
    kind: Kind
    text: str


@dataclass(frozen=True)
class Rights:
    """All that a file says, and what could not be read of it, in words."""

    statements: tuple[Statement, ...] = ()
    unread: tuple[str, ...] = ()


def rights_of(data: bytes) -> Rights:
    """What the bytes of a picture, which can be decoded, say of its rights."""
    unread: list[str] = []
    packets = packets_of(data, unread)
    found: list[Statement] = []
    for kind, read in {"XMP": _xmp, "IPTC": _iptc, "EXIF": _exif}.items():
        for packet in packets:
            if packet.kind == kind:
                found += read(packet.data, unread)
    for text in packets:
        if text.kind == "text":
            found.append(Statement(f"PNG {text.name}", _PNG[text.name], _text(text.data)))
    found += _c2pa(data, unread)
    unread += (
        f"its {s.where} has more than {_LONGEST:,} characters" for s in found if len(s.text) > _LONGEST
    )
    short = (Statement(s.where, s.kind, s.text.strip()[:_LONGEST]) for s in found)
    return Rights(tuple(dict.fromkeys(s for s in short if s.text)), tuple(dict.fromkeys(unread)))


def _xmp(packet: bytes, unread: list[str]) -> Iterator[Statement]:
    try:
        xml = _xml(packet)
        if not xml:
            return
        if any((word if isinstance(xml, str) else word.encode()) in xml for word in _DECLARATIONS):
            unread.append("its XMP declares entities, which XMP does not have")
            return
        root = ET.fromstring(xml)
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        unread.append(f"its XMP cannot be read ({error})")
        return
    for about in root.iter():  # properties stand in descriptions, and in the parts of structures
        found = [(_usual(key), [value]) for key, value in about.items()]
        if (name := _usual(about.tag)) in (*_PROPERTIES, _REMOTE):
            found.append((name, list(_values(about))))
        for name, values in found:
            if name in _PROPERTIES:
                yield from _statements(f"XMP {name}", _PROPERTIES[name], values)
            elif name == _REMOTE:
                addresses = [value.strip() for value in values if value.strip()]
                # One that begins with "self#" leads to the manifest in the file.
                unread += [f"its C2PA manifest at {a} is not fetched" for a in addresses if a[:5] != "self#"]


def _xml(packet: bytes) -> str | bytes:
    """A packet without its padding, as text if it is UTF-16, of which a byte alone is no letter.

    Raises:
        UnicodeDecodeError: it begins as UTF-16 and is none.
    """
    packet = packet.lstrip(b" \r\n\t")
    for order, begins in {"utf-16-le": (b"\xff\xfe", b"<\0"), "utf-16-be": (b"\xfe\xff", b"\0<")}.items():
        if packet.startswith(begins):
            return packet[: len(packet) & ~1].decode(order).strip("\ufeff\0 \r\n\t")
    return packet.strip(b"\0 \r\n\t")


def _usual(key: str) -> str:
    """A name with the usual prefix in place of its namespace; of any other namespace, nothing."""
    namespace, _, name = key.removeprefix("{").rpartition("}")
    return f"{_NAMESPACES[namespace]}:{name}" if namespace in _NAMESPACES else ""


def _values(element: ET.Element) -> Iterator[str]:
    """A resource, text, or the items of a bag, a list or one text in several languages.

    Each may be qualified: XMP specification part 1 §7.5 to §7.9.
    """
    if element.get(f"{_RDF}parseType") == "Literal":
        yield "".join(element.itertext())
        return
    waiting = deque([element])
    while waiting:
        each = waiting.popleft()
        yield each.text or ""
        yield from (each.get(f"{_RDF}{name}", "") for name in ("resource", "about", "value"))
        # Beside the value itself stand its qualifiers. A property within is one of its own.
        inner = each.findall(f"{_RDF}value") or (part for part in each if _usual(part.tag) not in _PROPERTIES)
        waiting.extend(inner)


def _statements(where: str, kind: Kind, values: list[str]) -> Iterator[Statement]:
    for value in values:
        if value.strip() and (kind != "mining" or _forbids(value)):
            yield Statement(where, kind, value)


def _forbids(value: str) -> bool:
    """Whether plus:DataMining says anything but that it is allowed, or that nothing is said."""
    return value.strip().rpartition("/")[2].upper() not in _ALLOW


def _exif(block: bytes, unread: list[str]) -> Iterator[Statement]:
    block = block.removeprefix(b"Exif\0\0")  # which some programs put into other formats too
    try:
        main, strange = tags.read_all_tags(block)
    except ValueError as error:
        unread.append(f"its EXIF cannot be read ({error})")
        return
    inner = main.get(tags.EXIF_IFD)
    for tag, (name, kind) in _EXIF.items():
        entries = [main.get(tag), inner.get(tag) if isinstance(inner, Mapping) else None]
        found = [entry for entry in entries if isinstance(entry, tags.Entry)]
        if tag in strange or any(entry.kind not in _EXIF_TEXT for entry in found):
            unread.append(f"its EXIF {name} cannot be read (it is of a type that is no text)")
        for entry in found:
            if entry.kind in _EXIF_TEXT:
                # EXIF 2.32 §4.6.4: the photographer's notice, NUL, the editor's.
                yield Statement(f"EXIF {name}", kind, _text(entry.value.strip(b"\0 ").replace(b"\0", b"; ")))


def _iptc(block: bytes, unread: list[str]) -> Iterator[Statement]:
    try:
        for key, value in _datasets(block):
            if key in _IPTC:
                name, kind = _IPTC[key]
                yield Statement(f"IPTC {name}", kind, _text(value))
    except ValueError as error:
        unread.append(f"its IPTC cannot be read ({error})")


def _datasets(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """IIM 4.2 §1.5: tag marker 28, record, dataset, length, value."""
    at = 0
    while at < len(block) and block[at] == 28:
        record, dataset = block[at + 1 : at + 2], block[at + 2 : at + 3]
        length, at = int.from_bytes(block[at + 3 : at + 5], "big"), at + 5
        if length & 0x8000:  # §1.5 d, extended: how many bytes the length itself has
            wide = length & 0x7FFF
            length, at = int.from_bytes(block[at : at + wide], "big"), at + wide
        if at + length > len(block):
            raise ValueError("a dataset is longer than its block")
        yield (record[0], dataset[0]), block[at : at + length]
        at += length
    if block[at:].strip(b"\0"):
        raise ValueError("no dataset begins where one should")


def _text(value: bytes) -> str:
    """Programs write UTF-8 or Latin-1 where the standards have ASCII."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _c2pa(data: bytes, unread: list[str]) -> Iterator[Statement]:
    if not seems_signed(data):
        return
    try:
        found = read_store(data)
    except NotInstalled:
        unread.append("its C2PA manifest needs c2pa-python: pip install 'cyclegan[provenance]'")
        return
    except CredentialsError as error:
        unread.append(f"its C2PA manifest cannot be read ({error})")
        return
    if found is None:
        return
    store, state = found
    for where, manifest, holds in _manifests(store, state != "Invalid"):
        for assertion in manifest.get("assertions", []):
            name, facts = f"{where} {assertion.get('label', '')}", assertion.get("data")
            if isinstance(facts, str):
                facts = _json(facts)
            if not isinstance(facts, Mapping):
                continue
            for statement in (*_of_assertion(name, facts), *_of_mining(name, facts)):
                # What is not allowed counts as it stands; what is granted only if nobody changed it.
                if statement.kind == "mining" or holds:
                    yield statement
                else:
                    unread.append(
                        f"{statement.where} says {statement.text!r}, but its signature does not hold"
                    )


def _manifests(store: Mapping[str, Any], holds: bool) -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """The file's manifest and those of what it was made from, with whether each one's signature holds."""
    manifests, seen = store.get("manifests", {}), set()
    waiting = [("C2PA", store.get("active_manifest"), holds)]
    while waiting:
        where, name, holds = waiting.pop(0)
        if name in seen or name not in manifests:
            continue
        seen.add(name)
        yield where, manifests[name], holds
        for each in manifests[name].get("ingredients", []):
            waiting.append(("C2PA ingredient", each.get("active_manifest"), holds and ingredient_holds(each)))


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _of_assertion(where: str, facts: Mapping[str, Any]) -> Iterator[Statement]:
    """Schema.org's CreativeWork (C2PA 1.4 §17.13) and metadata in JSON-LD (C2PA 2.2 §18.16)."""
    for name, kind in _SCHEMA.items():
        yield from _statements(where, kind, list(_words(facts.get(name))))
    for name, kind in _PROPERTIES.items():
        yield from _statements(f"{where} {name}", kind, list(_words(facts.get(name))))


def _words(value: Any) -> Iterator[str]:
    """The texts in what JSON-LD may hold: one, several, by language, or things with a name or an address."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from _words(each)
    elif isinstance(value, Mapping):
        for key in ("name", "@id", "@value", "url"):
            if isinstance(value.get(key), str):
                yield value[key]
                return
        yield from (text for key, text in value.items() if not key.startswith("@") and isinstance(text, str))


def _of_mining(where: str, facts: Mapping[str, Any]) -> Iterator[Statement]:
    entries = facts.get("entries")
    if "training-mining" not in where or not isinstance(entries, Mapping):
        return
    for name, entry in entries.items():
        use = entry.get("use") if isinstance(entry, Mapping) else None
        if str(name).rpartition(".")[2] in _TRAINING_USES and use in ("notAllowed", "constrained"):
            yield Statement(where, "mining", f"{name}: {use}")
