"""Every packet of XMP, EXIF and IPTC in a file's bytes, and the texts of a PNG.

Pillow keeps one of each kind, but what one packet allows another may forbid.
"""

import re
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cyclegan.metadata import tags

Kind = Literal["XMP", "EXIF", "IPTC", "text"]

# XMP specification part 3 §1.1.3 and §1.1.3.1, EXIF 2.32 §4.7.2, Photoshop's in APP13
_XMP_MARK, _EXTENSION_MARK = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
_EXIF_MARK, _PHOTOSHOP_MARK = b"Exif\0", b"Photoshop 3.0\0"
_APP1, _APP13, _END = 0xE1, 0xED, 0xD9  # ITU-T T.81 table B.1
_BARE = {0x01, *range(0xD0, 0xD9)}  # TEM, RSTn and SOI have no length
_MARKER = re.compile(rb"\xff+[^\0\xff]")  # within a scan 255 stands before 0, and before RSTn (T.81 §B.1.1.5)
_FULL = 65_000  # bytes: an EXIF block that fills its segment may go on in the next one
# Photoshop File Formats, "Image Resource IDs"
_RESOURCES: dict[int, Kind] = {0x0404: "IPTC", 0x0422: "EXIF", 0x0423: "EXIF", 0x0424: "XMP"}
_SIGNATURE = re.compile(rb"[A-Za-z0-9]{4}")  # 8BIM; other programs sign theirs with MeSa, AgHg, PHUT, DCSR
_IPTC, _PHOTOSHOP = 33723, 34377  # a TIFF's tags
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
_PNG_TEXTS = {
    name.lower(): name for name in ("Copyright", "Author", "Disclaimer")
}  # PNG 3rd edition §11.3.3.1
_PNG_XMP = ("xml:com.adobe.xmp", "xmp")
_PROFILE = "raw profile type "
# What stands in such a profile if its bytes do not say it themselves
_PROFILES: dict[str, Kind] = {
    "xmp": "XMP",
    "exif": "EXIF",
    "iptc": "IPTC",
    "8bim": "IPTC",
    "app1": "XMP",
    "app13": "IPTC",
}
_MOST_TEXT = 16 * 2**20  # bytes that a compressed text may have; a few of them can stand for gigabytes


@dataclass(frozen=True)
class Packet:
    """One block of metadata, as it lies in the file; ``name`` is the keyword of a PNG's text."""

    kind: Kind
    data: bytes
    name: str = ""


def packets_of(data: bytes, unread: list[str]) -> list[Packet]:
    """All packets in a file's bytes; a BMP has no place for any.

    Args:
        data: a JPEG, PNG, WebP, TIFF or BMP.
        unread: what is there and cannot be read is added to it, in words.
    """
    if data.startswith(b"\xff\xd8"):
        bodies = [body for marker, body in _segments(data, unread) if marker in (_APP1, _APP13)]
        return list(_of_segments(bodies, unread))
    if data.startswith(_PNG_MARK):
        return list(_png(data, unread))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return list(_webp(data, unread))
    if data[:2] in (b"II", b"MM"):
        return list(_tiff(data, unread))
    if data[:2] != b"BM":
        unread.append("its format is none whose metadata are known")
    return []


def _segments(data: bytes, unread: list[str]) -> Iterator[tuple[int, bytes]]:
    """ITU-T T.81 §B.1.1: marker, length, contents. Some may stand between the scans (§B.2.4)."""
    at = 2
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found[0][-1], found.end()
        if marker == _END:
            return
        if marker in _BARE:
            continue
        length = int.from_bytes(data[at : at + 2], "big")
        if length < 2 or at + length > len(data):
            unread.append("its segments cannot be read (one is longer than the file)")
            return
        yield marker, data[at + 2 : at + length]
        at += length


def _of_segments(bodies: Sequence[bytes], unread: list[str]) -> Iterator[Packet]:
    exif: list[bytes] = []
    portions: list[bytes] = []
    resources: list[bytes] = []
    for body in bodies:
        if body.startswith(_XMP_MARK):
            yield Packet("XMP", body.removeprefix(_XMP_MARK))
        elif body.startswith(_EXTENSION_MARK):
            portions.append(body.removeprefix(_EXTENSION_MARK))
        elif body.startswith(_PHOTOSHOP_MARK):
            resources.append(body.removeprefix(_PHOTOSHOP_MARK))
        elif body.startswith(_EXIF_MARK):
            block = body[len(_EXIF_MARK) + 1 :]  # padded with 0 or 255
            if exif and len(exif[-1]) >= _FULL and block[:2] not in (b"II", b"MM"):
                exif[-1] += block
            else:
                exif.append(block)
    yield from (Packet("EXIF", block) for block in exif)
    yield from _extended(portions, unread)
    yield from _photoshop(resources, unread)


def _extended(portions: Sequence[bytes], unread: list[str]) -> Iterator[Packet]:
    """XMP specification part 3 §1.1.3.1: 32 bytes of a GUID, the full length, the offset, a portion."""
    wholes: dict[tuple[bytes, int], set[tuple[int, bytes]]] = defaultdict(set)
    for portion in portions:
        full, offset = int.from_bytes(portion[32:36], "big"), int.from_bytes(portion[36:40], "big")
        wholes[portion[:32], full].add((offset, portion[40:]))
    for (_, full), parts in wholes.items():
        whole = bytearray()
        for offset, part in sorted(parts):
            if offset == len(whole):
                whole += part
            else:
                break
        if whole and len(whole) == full and sum(len(part) for _, part in parts) == full:
            yield Packet("XMP", bytes(whole))
        else:
            unread.append("its XMP cannot be read (the extension is not whole)")


def _photoshop(blocks: Sequence[bytes], unread: list[str]) -> Iterator[Packet]:
    """Photoshop's resources; a block that ends within one goes on in the next block."""
    waiting, fault = b"", ""
    for block in blocks:
        waiting += block
        try:
            found = list(_resources(waiting))
        except ValueError as error:
            fault = str(error)
            continue
        waiting = b""
        for number, data in found:
            if number in _RESOURCES and data:
                yield Packet(_RESOURCES[number], data)
    if waiting:
        unread.append(f"its IPTC cannot be read ({fault})")


def _resources(block: bytes) -> Iterator[tuple[int, bytes]]:
    """Photoshop File Formats, "Image Resource Blocks": signature, number, name, length, contents."""
    at = 0
    while at < len(block):
        if not _SIGNATURE.match(block, at):
            if not block[at:].strip(b"\0"):
                return
            raise ValueError("no resource begins where one should")
        number = int.from_bytes(block[at + 4 : at + 6], "big") if block[at : at + 4] == b"8BIM" else -1
        name = block[at + 6] if at + 6 < len(block) else 0  # a Pascal string, padded to an even length
        start = at + 6 + (name + 2 & ~1) + 4
        length = int.from_bytes(block[start - 4 : start], "big")
        if start + length > len(block):
            raise ValueError("a resource is longer than its block")
        yield number, block[start : start + length]
        at = start + length
        at += length % 2 and block[at : at + 1] == b"\0"  # padded, but not by every program


def _png(data: bytes, unread: list[str]) -> Iterator[Packet]:
    """PNG 3rd edition §5.3: length, type, contents, checksum."""
    at, segments = len(_PNG_MARK), []
    while at < len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + length]
        if kind == b"IEND":
            break
        if len(kind) < 4 or len(body) < length:
            unread.append("its chunks cannot be read (one is longer than the file)")
            break
        if kind == b"eXIf":
            yield Packet("EXIF", body)
        elif kind in (b"tEXt", b"zTXt", b"iTXt"):
            yield from _png_text(kind, body, segments, unread)
        at += 12 + length
    yield from _of_segments(segments, unread)


def _png_text(kind: bytes, body: bytes, segments: list[bytes], unread: list[str]) -> Iterator[Packet]:
    """PNG 3rd edition §11.3.3; profiles that are segments of a JPEG are added to ``segments``."""
    keyword, _, rest = body.partition(b"\0")
    name = " ".join(keyword.decode("latin-1").split()).lower()
    profile = name.removeprefix(_PROFILE) if name.startswith(_PROFILE) else ""
    if name not in _PNG_TEXTS and name not in _PNG_XMP and profile not in _PROFILES:
        return
    try:
        text = _text_of(kind, rest)
        if name in _PNG_TEXTS:
            yield Packet("text", text, _PNG_TEXTS[name])
        elif name in _PNG_XMP:
            yield Packet("XMP", text)
        else:
            yield from _of_profile(_digits(text), profile, segments, unread)
    except ValueError as error:
        what = f"PNG {_PNG_TEXTS[name]}" if name in _PNG_TEXTS else _PROFILES.get(profile, "XMP")
        unread.append(f"its {what} cannot be read ({error})")


def _text_of(kind: bytes, rest: bytes) -> bytes:
    if kind == b"tEXt":
        return rest
    if kind == b"zTXt":
        return _unzipped(rest[1:])
    parts = rest[2:].split(b"\0", 2)  # after whether and how it is compressed: language, keyword in it, text
    if len(parts) < 3:
        raise ValueError("its text is cut off")
    return _unzipped(parts[2]) if rest[0] else parts[2]


def _unzipped(stream: bytes) -> bytes:
    inflate = zlib.decompressobj()
    try:
        text = inflate.decompress(stream, _MOST_TEXT)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not inflate.eof:
        raise ValueError(f"its text is cut off, or longer than {_MOST_TEXT:,} bytes")
    return text


def _digits(text: bytes) -> bytes:
    """ImageMagick's and ExifTool's way to put into a PNG what it has no chunk for: a text of hex digits."""
    lines = text.strip().split(b"\n", 2)  # a name, which may be of two words, the length, the digits
    if len(lines) < 3:
        raise ValueError("its text has no digits")
    return bytes.fromhex(lines[2].decode("ascii"))


def _of_profile(block: bytes, profile: str, segments: list[bytes], unread: list[str]) -> Iterator[Packet]:
    """What a profile's bytes are they say better than its name, under which programs put several things."""
    if profile in ("app1", "app13") or block.startswith((_XMP_MARK, _EXIF_MARK, _PHOTOSHOP_MARK)):
        segments.append(block)
    elif profile == "8bim" or block.startswith(b"8BIM"):
        yield from _photoshop([block], unread)
    else:
        yield Packet(_PROFILES[profile], block)


def _webp(data: bytes, unread: list[str]) -> Iterator[Packet]:
    """RFC 9649 §2.3: four letters, length, contents, padded to an even length."""
    at, end = 12, min(len(data), 8 + int.from_bytes(data[4:8], "little"))
    while at + 8 <= end:
        name, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            unread.append("its chunks cannot be read (one is longer than the file)")
            return
        if name == b"EXIF":
            yield from _of_segments([body], unread) if body.startswith(_EXIF_MARK) else [Packet("EXIF", body)]
        elif name in (b"XMP ", b"XMP\0"):  # the second by some programs
            yield Packet("XMP", body)
        at += 8 + length + length % 2


def _tiff(data: bytes, unread: list[str]) -> Iterator[Packet]:
    """The first directory's, which the first picture's is; it is EXIF itself."""
    yield Packet("EXIF", data)
    try:
        entries, strange = tags.read_all_tags(data)
    except ValueError:
        return  # whoever reads its EXIF tells it
    kinds: dict[int, Kind] = {tags.XMP: "XMP", _IPTC: "IPTC", _PHOTOSHOP: "IPTC"}
    for tag, kind in kinds.items():
        entry = entries.get(tag)
        if tag in strange:
            unread.append(f"its {kind} cannot be read (tag {tag} is of an unknown type)")
        if not isinstance(entry, tags.Entry):
            continue
        # Some programs call the bytes 32-bit numbers; they are no numbers, so their order stays.
        block = data[entry.at : entry.at + len(entry.value)]
        if tag == _PHOTOSHOP or block.startswith(b"8BIM"):
            yield from _photoshop([block], unread)
        elif block:
            yield Packet(kind, block)
