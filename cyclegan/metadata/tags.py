"""Tagged entries as EXIF and TIFF store them (TIFF 6.0 §2, EXIF 2.32 and 3.0 §4.6), their bytes untouched.

Pillow decodes and encodes values, and text that is not ASCII is lost on the way; here bytes stay bytes.
"""

import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

ORIENTATION, EXTRA_SAMPLES, XMP, ICC_PROFILE, MAKER_NOTE = 274, 338, 700, 34675, 37500
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
ASCII, UTF8 = 2, 129  # types of text, the second since EXIF 3.0 §4.6.2
_WIDTHS, _HEIGHTS = (256, 40962), (257, 40963)  # ImageWidth and PixelXDimension, then the heights
_THUMBNAIL = ((513, 514), (273, 279))  # where it lies and its length: JPEG, or uncompressed strips
_SIZES = {
    1: 1,
    2: 1,
    3: 2,
    4: 4,
    5: 8,
    6: 1,
    7: 1,
    8: 2,
    9: 4,
    10: 8,
    11: 4,
    12: 8,
    13: 4,
    16: 8,
    17: 8,
    18: 8,
    UTF8: 1,
}
_SWAPPED = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}

# A TIFF's entries that tell of the picture and not of how its pixels lie in the file.
_DESCRIBES = {
    270, 271, 272, 282, 283, 285, 296, 305, 306, 315, 316, 18246, 18249, 33432,
    *range(40091, 40096), EXIF_IFD, GPS_IFD,
}  # fmt: skip
_OF_A_PROGRAM = re.compile(rb"ImageJ=|\s*\{\"shape\"|.*<OME\b", re.DOTALL)  # they tell of pages and axes


@dataclass(frozen=True)
class Entry:
    """One tag: its value in little-endian bytes, and where the value was found."""

    kind: int
    count: int
    value: bytes
    at: int = 0


Tags = Mapping[int, "Entry | Tags"]  # an entry that points to a further directory holds its tags


def read_tags(block: bytes) -> Tags:
    """The first directory of an EXIF block or a TIFF file, with those that it points to.

    Raises:
        ValueError: these bytes are no such directory, or it points outside of them.
    """
    return read_all_tags(block)[0]


def read_all_tags(block: bytes) -> tuple[Tags, frozenset[int]]:
    """As ``read_tags``, with the tags, EXIF's own too, whose entries are of a type that is not known.

    Raises:
        ValueError: as ``read_tags``.
    """
    reader = _Reader(block)
    found = reader.tags(reader.first)
    return found, frozenset(reader.strange)


class _Reader:
    def __init__(self, block: bytes) -> None:
        self.block = block
        orders = {b"II": "<", b"MM": ">"}
        if block[:2] not in orders:
            raise ValueError("no byte order mark")
        self.order = orders[block[:2]]
        self.big = self.number("H", 2) == 43  # BigTIFF: 64-bit offsets
        self.first = self.number("Q", 8) if self.big else self.number("I", 4)
        self.strange: set[int] = set()  # tags that were skipped

    def number(self, kind: str, at: int) -> int:
        try:
            return struct.unpack_from(self.order + kind, self.block, at)[0]
        except struct.error as error:
            raise ValueError("ends too early") from error

    def directory(self, at: int) -> tuple[dict[int, Entry], int]:
        """The entries at ``at``, and where the offset of the next directory stands."""
        count, at = (self.number("Q", at), at + 8) if self.big else (self.number("H", at), at + 2)
        if count > 4096:
            raise ValueError("too many entries")
        step, wide, inline = (20, "Q", 8) if self.big else (12, "I", 4)
        entries, total = {}, 0
        for here in range(at, at + step * count, step):
            tag, kind, number = (
                self.number("H", here),
                self.number("H", here + 2),
                self.number(wide, here + 4),
            )
            if kind not in _SIZES:
                self.strange.add(tag)
                continue  # TIFF 6.0: "readers should skip over fields containing an unexpected field type"
            length = _SIZES[kind] * number
            start = here + 4 + inline
            start = start if length <= inline else self.number(wide, start)
            total += length
            if start + length > len(self.block) or total > len(self.block):
                raise ValueError("points outside, or to the same bytes again and again")
            value = self.block[start : start + length]
            entries[tag] = Entry(kind, number, self._little(kind, value), start)
        return entries, at + step * count

    def _little(self, kind: int, value: bytes) -> bytes:
        if self.order == "<" or kind not in _SWAPPED:
            return value
        width = _SWAPPED[kind]
        return np.frombuffer(value, f">u{width}").astype(f"<u{width}").tobytes()

    def tags(self, at: int) -> dict[int, "Entry | Tags"]:
        tags: dict[int, Entry | Tags] = dict(self.directory(at)[0])
        for pointer in (EXIF_IFD, GPS_IFD, INTEROP_IFD):
            entry = tags.get(pointer)
            if isinstance(entry, Entry):
                # Interoperability stands inside EXIF; deeper or circular ones are not read.
                inner: dict[int, Entry | Tags] = dict(self.directory(_integer(entry))[0])
                nested = inner.pop(INTEROP_IFD, None)
                if pointer == EXIF_IFD and isinstance(nested, Entry):
                    inner[INTEROP_IFD] = self.directory(_integer(nested))[0]
                tags[pointer] = inner
        return tags


def _integer(entry: Entry) -> int:
    return int.from_bytes(entry.value[: _SIZES[entry.kind]], "little")


def describing(tags: Tags) -> Tags:
    """Of a TIFF's entries those that belong into EXIF."""
    kept = {tag: value for tag, value in tags.items() if tag in _DESCRIBES}
    text = kept.get(270)
    if isinstance(text, Entry) and _OF_A_PROGRAM.match(text.value):
        del kept[270]
    return kept


def write_tags(tags: Tags, at: int) -> bytes:
    """A little-endian directory that will stand at offset ``at``, with its values and inner ones."""
    table, heap = bytearray(), bytearray()
    start = at + 2 + 12 * len(tags) + 4
    for tag in sorted(tags):
        value = tags[tag]
        if not isinstance(value, Entry):
            inner = write_tags(value, start + len(heap))
            value = Entry(4, 1, (start + len(heap)).to_bytes(4, "little"))
            heap += inner
        if len(value.value) <= 4:
            stored = value.value.ljust(4, b"\0")
        else:
            stored = (start + len(heap)).to_bytes(4, "little")
            heap += value.value + b"\0" * (len(value.value) % 2)  # offsets are even
        table += struct.pack("<HHI", tag, value.kind, value.count) + stored
    return struct.pack("<H", len(tags)) + bytes(table) + bytes(4) + bytes(heap)


def exif_block(tags: Tags) -> bytes:
    """Tags as an EXIF block of their own."""
    return b"II*\0" + (8).to_bytes(4, "little") + write_tags(tags, 8)


def upright(block: bytes, height: int, width: int) -> bytes:
    """An EXIF block for the same picture turned upright, ``height`` x ``width``, without its thumbnail.

    It is changed in place: makers' notes hold offsets that a block laid out anew would break.

    Raises:
        ValueError: as ``read_tags``.
    """
    reader = _Reader(block)
    changed = bytearray(block)
    main, link = reader.directory(reader.first)
    inner = reader.directory(_integer(main[EXIF_IFD]))[0] if EXIF_IFD in main else {}
    numbers = {ORIENTATION: 1, **dict.fromkeys(_WIDTHS, width), **dict.fromkeys(_HEIGHTS, height)}
    for entries in (main, inner):
        for tag, number in numbers.items():
            entry = entries.get(tag)
            if entry is not None and entry.count == 1 and entry.kind in (3, 4):
                size = _SIZES[entry.kind]
                order = "little" if reader.order == "<" else "big"
                changed[entry.at : entry.at + size] = min(number, 256**size - 1).to_bytes(size, order)
    _remove_thumbnail(reader, link, changed)
    return bytes(changed)


def _remove_thumbnail(reader: _Reader, link: int, changed: bytearray) -> None:
    """The thumbnail shows the source; its bytes go, not only the way to them."""
    if len(reader.block) < link + 4 or not (second := reader.number("I", link)):
        return
    changed[link : link + 4] = bytes(4)
    entries, _ = reader.directory(second)
    for where, length in _THUMBNAIL:
        if where in entries and length in entries and entries[where].count == 1:
            start, size = _integer(entries[where]), _integer(entries[length])
            at_end = start + size == len(changed)
            changed[start : start + size] = b"" if at_end else bytes(len(changed[start : start + size]))


def without_maker_note(block: bytes) -> bytes:
    """The block laid out anew, without the makers' private notes, which may be large."""
    tags = dict(read_tags(block))
    inner = tags.get(EXIF_IFD)
    if isinstance(inner, Mapping):
        tags[EXIF_IFD] = {tag: value for tag, value in inner.items() if tag != MAKER_NOTE}
    return exif_block(tags)
