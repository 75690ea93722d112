"""Where each format keeps its colour profile, EXIF and XMP. BMP has no place for any of them."""

import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from cyclegan.metadata import tags

_SPACES = {1: b"GRAY", 3: b"RGB "}  # ICC.1:2022 §7.2.6, the profile's data colour space
_EXIF_PREFIX = b"Exif\0\0"
_JPEG_SEGMENT = 65_533 - len(_EXIF_PREFIX)  # a JPEG segment's length is a 16-bit number


@dataclass(frozen=True)
class Metadata:
    """What a file says beside its pixels: the bytes of its colour profile, EXIF (a TIFF block) and XMP."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None

    def fitting(self, channels: int) -> "Metadata":
        """Without a colour profile that is for another number of channels (a CMYK file's, say)."""
        profile = self.icc_profile
        fits = profile is not None and profile[16:20] == _SPACES[channels]
        return self if fits else replace(self, icc_profile=None)


def metadata_of(image: Image.Image, data: bytes, height: int, width: int) -> Metadata:
    """What an opened file says; EXIF as for the upright picture of ``height`` x ``width``, no thumbnail.

    Args:
        image: as Pillow opened it (of a PNG, loaded: its texts may follow the pixels).
        data: the file's bytes.
    """
    exif, xmp, profile = image.info.get("exif"), image.info.get("xmp"), image.info.get("icc_profile")
    try:
        if image.format == "TIFF":
            described = tags.describing(tags.read_tags(data))
            exif = tags.exif_block(described) if described else None
        if exif:
            exif = tags.upright(exif.removeprefix(_EXIF_PREFIX), height, width)
    except ValueError:
        exif = None  # damaged: what cannot be read cannot be made upright
    return Metadata(profile or None, exif or None, xmp if isinstance(xmp, bytes) and xmp else None)


def for_pillow(metadata: Metadata, suffix: str) -> dict[str, Any]:
    """Arguments of Pillow's ``save`` for JPEG and WebP."""
    exif = metadata.exif
    if exif and suffix != ".webp" and len(exif) > _JPEG_SEGMENT:
        exif = tags.without_maker_note(exif)
        exif = exif if len(exif) <= _JPEG_SEGMENT else None
    found = {"icc_profile": metadata.icc_profile, "xmp": metadata.xmp}
    found["exif"] = _EXIF_PREFIX + exif if exif else None
    return {name: value for name, value in found.items() if value}


def embed_png(data: bytes, metadata: Metadata) -> bytes:
    """A PNG file with its metadata before the pixels (PNG 3rd edition §11.3: iCCP, eXIf, iTXt)."""
    after_header = 8 + 25  # the signature, then IHDR, which has one length
    chunks = b""
    if metadata.icc_profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc_profile))
    if metadata.exif:
        chunks += _chunk(b"eXIf", metadata.exif)
    if metadata.xmp:
        chunks += _chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp)
    return data[:after_header] + chunks + data[after_header:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def embed_tiff(data: bytes, metadata: Metadata, alpha: bool) -> bytes:
    """A little-endian TIFF with its metadata: a longer directory at the end takes the first one's place.

    Args:
        alpha: the last channel is one, which OpenCV writes without saying so (TIFF 6.0 §18).
    """
    added: dict[int, tags.Entry | tags.Tags] = {}
    if alpha:
        added[tags.EXTRA_SAMPLES] = tags.Entry(3, 1, b"\2\0")  # unassociated alpha
    if metadata.exif:
        for tag, entry in tags.describing(tags.read_tags(metadata.exif)).items():
            is_utf8 = isinstance(entry, tags.Entry) and entry.kind == tags.UTF8
            # A type of EXIF 3.0 that TIFF does not have: libtiff warns of it and drops the text.
            added[tag] = replace(entry, kind=tags.ASCII) if is_utf8 else entry
    if metadata.icc_profile:
        added[tags.ICC_PROFILE] = tags.Entry(7, len(metadata.icc_profile), metadata.icc_profile)
    if metadata.xmp:
        added[tags.XMP] = tags.Entry(1, len(metadata.xmp), metadata.xmp)
    if not added:
        return data
    data += b"\0" * (len(data) % 2)
    directory = tags.write_tags({**tags.read_tags(data), **added}, len(data))
    return data[:4] + len(data).to_bytes(4, "little") + data[8:] + directory
