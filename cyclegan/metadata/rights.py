"""What a picture's file says of its rights: XMP, IPTC, EXIF, PNG's texts, C2PA."""

import json
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

from PIL import Image

from cyclegan.metadata import tags
from cyclegan.metadata.credentials import (
    CredentialsError,
    NotInstalled,
    ingredient_holds,
    read_store,
    seems_signed,
)

Kind = Literal["licence", "notice", "creator", "mining"]
_LONGEST = 2000  # characters of one statement; whole licences have been put into such fields

# XMP specification part 3 §1.1.3; EXIF 2.32 §4.7.2
_XMP_MARK, _EXIF_MARK = b"http://ns.adobe.com/xap/1.0/\0", b"Exif\0\0"
_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
# By namespace and name as XMP has them; JSON-LD in C2PA has the names with their usual prefixes.
_PROPERTIES: dict[tuple[str, str], Kind] = {
    ("cc", "license"): "licence",
    ("xmpRights", "UsageTerms"): "licence",
    ("xmpRights", "WebStatement"): "licence",
    ("dcterms", "license"): "licence",
    ("dc", "rights"): "notice",
    ("dc", "creator"): "creator",
    ("xmpRights", "Owner"): "creator",
    ("cc", "attributionName"): "creator",
    ("photoshop", "Credit"): "creator",
    ("plus", "CopyrightOwnerName"): "creator",
    ("plus", "ImageCreatorName"): "creator",
    ("plus", "DataMining"): "mining",
}
_NAMESPACES = {
    "cc": "http://creativecommons.org/ns#",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
    "dcterms": "http://purl.org/dc/terms/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
}
_EXIF: dict[int, tuple[str, Kind]] = {33432: ("Copyright", "notice"), 315: ("Artist", "creator")}
# IIM 4.2, record 2
_IPTC: dict[tuple[int, int], tuple[str, Kind]] = {
    (2, 116): ("CopyrightNotice", "notice"),
    (2, 80): ("By-line", "creator"),
    (2, 110): ("Credit", "creator"),
}
_IPTC_RESOURCE, _IPTC_TAG = 0x0404, 33723  # in Photoshop's resources, in a TIFF
_PNG: dict[str, Kind] = {"Copyright": "notice", "Author": "creator"}  # PNG 3rd edition §11.3.3.1
_SCHEMA: dict[str, Kind] = {"license": "licence", "copyrightNotice": "notice", "author": "creator"}
# PLUS' and C2PA's words for what a network that makes pictures is trained under (C2PA 1.4 §17.3, CAWG 1.1).
_FORBID = ("DMI-PROHIBITED", "DMI-PROHIBITED-AIMLTRAINING", "DMI-PROHIBITED-GENAIMLTRAINING")
_UNCHECKED = (
    "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING",
    "DMI-PROHIBITED-SEECONSTRAINT",
    "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR",
)
_TRAINING_USES = ("ai_training", "ai_generative_training", "data_mining")


@dataclass(frozen=True)
class Statement:
    """One thing that a file says.

    Args:
        where: the standard and the field, as "XMP dc:rights".
        kind: a licence; a notice of copyright; who made it or holds it; "mining": training is not allowed.
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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's of odd tags
        with Image.open(BytesIO(data)) as image:
            image.load()  # of a PNG, texts may follow the pixels
            found = [*_xmp(image, unread), *_iptc(image, data, unread), *_exif(image, data, unread)]
            found += [
                Statement(f"PNG {name}", kind, str(image.info[name]))
                for name, kind in _PNG.items()
                if image.format == "PNG" and image.info.get(name)
            ]
    found += _c2pa(data, unread)
    short = (Statement(s.where, s.kind, s.text.strip()[:_LONGEST]) for s in found)
    return Rights(tuple(dict.fromkeys(s for s in short if s.text)), tuple(unread))


def _xmp(image: Image.Image, unread: list[str]) -> Iterator[Statement]:
    # All that there are: what one packet allows another may forbid.
    for read in (
        lambda: image.info.get("xmp"),
        lambda: _raw_profile(image, "xmp"),
        lambda: _app1(image, _XMP_MARK),
    ):
        try:
            packet = read()
        except ValueError as error:
            unread.append(f"its XMP cannot be read ({error})")
            continue
        if isinstance(packet, bytes) and packet:
            yield from _packet(packet, unread)


def _packet(packet: bytes, unread: list[str]) -> Iterator[Statement]:
    if b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        unread.append("its XMP declares entities, which XMP does not have")
        return
    try:
        root = ET.fromstring(packet.strip(b"\0 \r\n\t"))
    except (ET.ParseError, ValueError, RecursionError) as error:
        unread.append(f"its XMP cannot be read ({error})")
        return
    for about in root.iter():  # properties stand in descriptions, and in the parts of structures
        for (prefix, name), kind in _PROPERTIES.items():
            key = f"{{{_NAMESPACES[prefix]}}}{name}"
            values = [about.get(key, "")]
            for element in about.findall(key):
                # A resource, plain text, or the items of a bag, a list or one text in several languages.
                values += [element.get(f"{_RDF}resource", ""), element.text or ""]
                values += [item.text or "" for item in element.iter(f"{_RDF}li")]
            yield from _statements(f"XMP {prefix}:{name}", kind, values)


def _statements(where: str, kind: Kind, values: list[str]) -> Iterator[Statement]:
    for value in values:
        if value.strip() and (kind != "mining" or _forbids(value)):
            yield Statement(where, kind, value)


def _forbids(value: str) -> bool:
    return value.strip().rpartition("/")[2] in (*_FORBID, *_UNCHECKED)


def _exif(image: Image.Image, data: bytes, unread: list[str]) -> Iterator[Statement]:
    for read in (  # all that there are, as of XMP
        lambda: data if image.format == "TIFF" else image.info.get("exif"),
        lambda: _raw_profile(image, "exif"),
        lambda: _app1(image, _EXIF_MARK),
    ):
        try:
            block = read()
            entries = tags.read_tags(block.removeprefix(_EXIF_MARK)) if block else {}
        except ValueError as error:
            unread.append(f"its EXIF cannot be read ({error})")
            continue
        for tag, (name, kind) in _EXIF.items():
            entry = entries.get(tag)
            if isinstance(entry, tags.Entry):
                # EXIF 2.32 §4.6.4: the photographer's notice, NUL, the editor's.
                yield Statement(f"EXIF {name}", kind, _text(entry.value.strip(b"\0 ").replace(b"\0", b"; ")))


def _iptc(image: Image.Image, data: bytes, unread: list[str]) -> Iterator[Statement]:
    try:
        block = _iptc_block(image, data)
        for key, value in _datasets(block):
            if key in _IPTC:
                name, kind = _IPTC[key]
                yield Statement(f"IPTC {name}", kind, _text(value))
    except (ValueError, IndexError) as error:
        unread.append(f"its IPTC cannot be read ({error})")


def _iptc_block(image: Image.Image, data: bytes) -> bytes:
    """IIM's datasets, from where each format keeps them; nothing where there are none."""
    if "photoshop" in image.info:
        return image.info["photoshop"].get(_IPTC_RESOURCE, b"")
    if image.format == "TIFF":
        entry = tags.read_tags(data).get(_IPTC_TAG)
        # Some programs call the bytes 32-bit numbers; they are no numbers, so their order stays.
        return data[entry.at : entry.at + len(entry.value)] if isinstance(entry, tags.Entry) else b""
    resources = _raw_profile(image, "iptc")
    at = resources.find(b"8BIM" + _IPTC_RESOURCE.to_bytes(2, "big"))
    if at < 0:
        return resources
    name = resources[at + 6]  # a Pascal string, padded to an even length
    start = at + 6 + (name + 2 & ~1)
    return resources[start + 4 : start + 4 + int.from_bytes(resources[start : start + 4], "big")]


def _datasets(block: bytes) -> Iterator[tuple[tuple[int, int], bytes]]:
    """IIM 4.2 §1.5: tag marker 28, record, dataset, length, value."""
    at = 0
    while at + 5 <= len(block) and block[at] == 28:
        length = int.from_bytes(block[at + 3 : at + 5], "big")
        if length & 0x8000 or at + 5 + length > len(block):
            raise ValueError("a dataset is longer than its block")
        yield (block[at + 1], block[at + 2]), block[at + 5 : at + 5 + length]
        at += 5 + length


def _raw_profile(image: Image.Image, name: str) -> bytes:
    """ImageMagick's and ExifTool's way to put into a PNG what it has no chunk for: a text of hex digits."""
    text = image.info.get(f"Raw profile type {name}")
    if text is None:
        return b""
    lines = str(text).strip().split("\n", 2)  # a name, which may be of two words, the length, the digits
    if len(lines) < 3:
        raise ValueError("its text has no digits")
    return bytes.fromhex(lines[2])


def _app1(image: Image.Image, mark: bytes) -> bytes:
    """EXIF or XMP, told by ``mark``, from a JPEG's segment that was put into a PNG as it was."""
    segment = _raw_profile(image, "APP1")
    return segment.removeprefix(mark) if segment.startswith(mark) else b""


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
    for (prefix, name), kind in _PROPERTIES.items():
        yield from _statements(f"{where} {prefix}:{name}", kind, list(_words(facts.get(f"{prefix}:{name}"))))


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
