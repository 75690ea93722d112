"""Image files in and out: every bit depth, colour model and orientation handled on purpose.

Pixels are numpy arrays (H, W, C), uint8 or uint16, C = 1 or 3; tensors are (C, H, W) floats in [-1, 1].
"""

import contextlib
import os
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from cyclegan.errors import BadInput
from cyclegan.files import replace_file
from cyclegan.metadata import Metadata, embed_png, embed_tiff, for_pillow, metadata_of

if TYPE_CHECKING:
    import torch

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
TIFF_SUFFIXES = (".tif", ".tiff")
DEEP_SUFFIXES = (".png", *TIFF_SUFFIXES)  # the formats that we write with 16 bits a channel
ALPHA_SUFFIXES = (".png", *TIFF_SUFFIXES, ".webp")
WHITE = (255, 255, 255)
NO_METADATA = Metadata()
MAX_PIXELS = 512_000_000  # refused before decoding; a 22,600-pixel square still passes

Image.MAX_IMAGE_PIXELS = None  # our own limit, checked on the header, speaks in its place
cv2.setNumThreads(0)  # the loader's own workers share the cores

# Pillow's ways to fail on bytes that are not as they should be.
_UNDECODABLE = (
    OSError, ValueError, SyntaxError, EOFError, MemoryError, TypeError, AttributeError, LookupError,
    struct.error, cv2.error,
)  # fmt: skip
# What Pillow says of a file beside its pixels, of what kinds.
_KINDS = {"exif": bytes, "icc_profile": bytes, "xmp": bytes, "transparency": (bytes, int, tuple)}

# ITU-R BT.601, the weights Pillow uses for convert("L")
_LUMA = np.array([0.299, 0.587, 0.114])


class BadImage(BadInput):
    """A file that cannot be used as an image; the message begins with its path."""


@dataclass(frozen=True)
class Picture:
    """A decoded file: ``pixels`` (H, W, C) upright, ``alpha`` (H, W) when it had one, what it says."""

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    metadata: Metadata = NO_METADATA


def list_images(folder: Path) -> list[Path]:
    """All image files under ``folder``, recursively as ``walk``, sorted by path."""
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder; check the path, or put the images there")
    return sorted(folder / name for name in walk(folder) if name.lower().endswith(SUFFIXES))


def walk(root: Path, depth: int | None = None, leave_out: Path | None = None) -> Iterator[str]:
    """The files under ``root`` as relative names with ``/``: a folder's own, sorted, before its folders'.

    Hidden names are left out. Links to folders are followed, but for those that lead back to a folder
    above them. ``depth`` is how many folders deep to go, 0 for the root alone.

    Raises:
        BadInput: a folder cannot be read.
    """
    above = {identity_of(folder) for folder in (root, leave_out) if folder is not None and folder.exists()}
    waiting = [("", frozenset(above))]
    while waiting:
        prefix, above = waiting.pop()
        try:
            with os.scandir(root / prefix) as entries:
                listed = sorted((entry for entry in entries if entry.name[0] != "."), key=lambda e: e.name)
        except OSError as error:
            raise BadInput(f"{root / prefix}: this folder cannot be read ({error.strerror})") from error
        folders = [entry for entry in listed if _is_folder(entry)]
        yield from (prefix + entry.name for entry in listed if not _is_folder(entry))
        if depth is not None and prefix.count("/") >= depth:
            continue
        for entry in reversed(folders):
            here = identity_of(Path(entry.path))
            if here not in above:
                waiting.append((f"{prefix}{entry.name}/", above | {here}))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself; reading it as a file will say so
        return False


def identity_of(path: Path) -> tuple[int, int]:
    """What the system knows a file or folder by, whatever it is called."""
    status = path.stat()
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def _open(path: Path, max_pixels: int) -> Iterator[tuple[Image.Image, bytes]]:
    """The lazily opened image and its bytes, all of Pillow's ways to fail said in one line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror})") from error
    if not data:
        raise BadImage(f"{path}: is empty (0 bytes)")
    try:
        # Pillow warns of odd tags and palettes; the pixels are what counts here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > max_pixels:
                    raise BadImage(
                        f"{path}: {image.width}x{image.height} pixels are past the limit of {max_pixels:,}; "
                        "make it smaller"
                    )
                _forget_mistaken(image)
                yield image, data
    except UnidentifiedImageError as error:
        raise BadImage(f"{path}: is not a JPEG, PNG, WebP, TIFF or BMP image") from error
    except _UNDECODABLE as error:
        raise BadImage(f"{path}: cannot be decoded ({error})") from error


def _forget_mistaken(image: Image.Image) -> None:
    """Pillow keeps a PNG's texts where it keeps what a file is, and a text may have any name."""
    for name, kinds in _KINDS.items():
        if name in image.info and not isinstance(image.info[name], kinds):
            del image.info[name]


def _load(image: Image.Image) -> None:
    image.load()
    _forget_mistaken(image)  # of a PNG, texts may follow the pixels


def read_image(
    path: Path,
    channels: int = 3,
    background: tuple[int, int, int] = WHITE,
    max_pixels: int = MAX_PIXELS,
) -> Picture:
    """Decode one file, upright, as ``channels`` channels at the file's own bit depth.

    Args:
        path: JPEG, PNG, WebP, TIFF or BMP; of an animation or a multi-page file, the first picture.
        channels: 1 (luminance, BT.601) or 3 (a grey file is repeated three times).
        background: 8-bit RGB colour that transparent pixels are composited on.
        max_pixels: larger images are refused before they are decoded.

    Returns:
        A picture, uint16 when the file stores 16 bits a channel, else uint8; alpha likewise. Its
        metadata is as for these pixels: EXIF upright, no colour profile of other channels.

    Raises:
        BadImage: unreadable, truncated, too large, or of a kind that would lose meaning silently.
    """
    with _open(path, max_pixels) as (image, data):
        orientation = _orientation(image, data)
        raw = _decode_16(path, image, data) if _is_16_bit(image, data) else _decode_8(path, image)
        pixels, alpha = _split_alpha(_upright(raw, orientation))
        metadata = metadata_of(image, data, *pixels.shape[:2])
    if alpha is not None:
        pixels = _composite(pixels, alpha, background)
    return Picture(as_channels(pixels, channels), alpha, metadata.fitting(channels))


def read_metadata(path: Path, max_pixels: int = MAX_PIXELS) -> Metadata:
    """What a file says beside its pixels.

    Raises:
        BadImage: as ``read_image``.
    """
    with _open(path, max_pixels) as (image, data):
        _load(image)
        return metadata_of(image, data, image.height, image.width)


def from_pil(image: Image.Image, channels: int = 3, background: tuple[int, int, int] = WHITE) -> Picture:
    """A PIL image of any mode as ``read_image`` gives a file, but as it lies: EXIF is not looked at.

    Raises:
        BadImage: 32-bit modes (I, F), whose range is unknown.
    """
    if image.mode.startswith("I;16"):
        raw = np.asarray(image).astype(np.uint16)[:, :, None]
    else:
        raw = _decode_8("this PIL image", image)
    pixels, alpha = _split_alpha(raw)
    if alpha is not None:
        pixels = _composite(pixels, alpha, background)
    return Picture(as_channels(pixels, channels), alpha)


def to_pil(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Image.Image:
    """(H, W, C) uint8 with (H, W) alpha as L, LA, RGB or RGBA; (H, W, 1) uint16 as I;16."""
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha[:, :, None]], axis=2)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Height and width, upright, from the header alone."""
    with _open(path, max_pixels) as (image, data):
        turned = _orientation(image, data) >= 5
        return (image.width, image.height) if turned else (image.height, image.width)


def _orientation(image: Image.Image, data: bytes) -> int:
    """The EXIF orientation that is left to us: Pillow and OpenCV turn a TIFF upright themselves."""
    if image.format == "TIFF":
        return 1
    if image.format == "PNG":
        if b"eXIf" not in data and b"Raw profile type exif" not in data:
            return 1  # Pillow would decode the pixels, to look behind them
        _load(image)
    return image.getexif().get(0x0112, 1)


def _is_16_bit(image: Image.Image, data: bytes) -> bool:
    """Pillow quietly reads 16-bit colour as 8 bits, so the depth is taken from the file itself."""
    if image.format == "PNG":
        return data[24] == 16  # IHDR: bit depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(258, (1,))) == 16  # BitsPerSample
    return image.mode.startswith("I;16")


def _decode_16(path: Path, image: Image.Image, data: bytes) -> np.ndarray:
    if image.mode == "CMYK" or (image.format == "TIFF" and image.tag_v2.get(262) not in (0, 1, 2)):
        raise BadImage(f"{path}: 16-bit images must be grey or RGB; convert this one first")
    flags = cv2.IMREAD_UNCHANGED
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if decoded is None or decoded.dtype != np.uint16:
        raise BadImage(f"{path}: cannot be decoded as a 16-bit image")
    if decoded.ndim == 2:
        return decoded[:, :, None]
    order = [2, 1, 0, 3] if decoded.shape[2] == 4 else [2, 1, 0]
    return np.ascontiguousarray(decoded[:, :, order])  # OpenCV's order is BGR


def _decode_8(path: Path | str, image: Image.Image) -> np.ndarray:
    if image.mode in ("F", "I"):
        raise BadImage(
            f"{path}: 32-bit images are not read, for their range is unknown; save it with 16 bits"
        )
    _load(image)
    if image.mode == "CMYK":
        image = _cmyk_to_rgb(image)
    has_alpha = image.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in image.info
    grey = image.mode in ("1", "L", "LA", "La")
    target = ("LA" if grey else "RGBA") if has_alpha else ("L" if grey else "RGB")
    pixels = np.asarray(image.convert(target))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    """By the file's own colour profile where it has one; the plain formula is a last resort."""
    profile = image.info.get("icc_profile")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError):
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(
                image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
            )
            if converted is not None:
                return converted
    return image.convert("RGB")


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply the EXIF orientation (1 to 8; anything else is taken as upright)."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _split_alpha(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if pixels.shape[2] in (1, 3):
        return pixels, None
    return np.ascontiguousarray(pixels[:, :, :-1]), np.ascontiguousarray(pixels[:, :, -1])


def _composite(pixels: np.ndarray, alpha: np.ndarray, background: tuple[int, int, int]) -> np.ndarray:
    peak = np.iinfo(pixels.dtype).max
    colour = np.array(background, np.float32) * (peak / 255)
    if pixels.shape[2] == 1 and len(set(background)) > 1:
        pixels = np.repeat(pixels, 3, axis=2)
    colour = colour[: pixels.shape[2]]
    opacity = alpha[:, :, None].astype(np.float32) / peak
    return np.rint(pixels * opacity + colour * (1 - opacity)).astype(pixels.dtype)


def as_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """(H, W, 1 or 3) as ``channels`` channels: luminance (BT.601), or grey three times."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=2)
    return np.rint(pixels @ _LUMA)[:, :, None].astype(pixels.dtype)


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Antialiased resize of (H, W, C): area averages when it shrinks, bicubic when it grows.

    Where one side shrinks and the other one grows it shrinks first: bicubic alone would skip pixels.
    """
    shrunk = min(height, pixels.shape[0]), min(width, pixels.shape[1])
    for size, way in ((shrunk, cv2.INTER_AREA), ((height, width), cv2.INTER_CUBIC)):
        if pixels.shape[:2] != size:
            resized = cv2.resize(pixels, size[::-1], interpolation=way)
            pixels = resized if resized.ndim == 3 else resized[:, :, None]
    return pixels


def to_tensor(pixels: np.ndarray) -> "torch.Tensor":
    """(H, W, C) uint8, uint16 or float in [0, 1] to a (C, H, W) float32 tensor in [-1, 1]."""
    import torch

    peak = 1 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    scale = np.float32(2 / peak)
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)) * scale - np.float32(1))


def from_tensor(tensor: "torch.Tensor", dtype: np.dtype | type = np.uint8) -> np.ndarray:
    """A (C, H, W) tensor in [-1, 1] to (H, W, C) of ``dtype``; values outside are clipped.

    Floats come out in [0, 1].
    """
    dtype = np.dtype(dtype)
    # By numpy, for it keeps to the thread that it is called from; torch would start more of them.
    values = np.clip(tensor.detach().float().cpu().numpy(), -1, 1).transpose(1, 2, 0) + np.float32(1)
    if dtype.kind == "f":
        return np.ascontiguousarray(values * np.float32(0.5)).astype(dtype)
    return np.ascontiguousarray(np.rint(values * np.float32(np.iinfo(dtype).max / 2))).astype(dtype)


def write_image(
    path: Path,
    pixels: np.ndarray,
    alpha: np.ndarray | None = None,
    quality: int = 95,
    metadata: Metadata = NO_METADATA,
) -> None:
    """Write (H, W, C) pixels in the format that the suffix names, whole or not at all (``encode_image``)."""
    replace_file(path, encode_image(path.suffix, pixels, alpha, quality, metadata))


def encode_image(
    suffix: str,
    pixels: np.ndarray,
    alpha: np.ndarray | None = None,
    quality: int = 95,
    metadata: Metadata = NO_METADATA,
) -> bytes:
    """The bytes of a file with (H, W, C) pixels, in the format that the suffix names.

    16-bit pixels stay so in PNG and TIFF and become 8 bits elsewhere; alpha is kept where the format
    has it, metadata everywhere but in BMP. ``quality`` is for JPEG and WebP.
    """
    suffix = suffix.lower()
    if pixels.dtype == np.uint16 and suffix not in DEEP_SUFFIXES:
        pixels = np.rint(pixels / 257).astype(np.uint8)
        alpha = None if alpha is None else np.rint(alpha / 257).astype(np.uint8)
    if alpha is not None and suffix in ALPHA_SUFFIXES:
        pixels = np.concatenate([pixels, alpha[:, :, None].astype(pixels.dtype)], axis=2)
    deep = pixels.dtype == np.uint16
    if pixels.shape[2] == 2 and deep:  # grey with alpha: OpenCV has no such file, RGBA says the same
        pixels = pixels[:, :, [0, 0, 0, 1]]
    metadata = metadata.fitting(1 if pixels.shape[2] < 3 and suffix != ".webp" else 3)
    data = _encode_16(pixels, suffix) if deep else _encode_8(pixels, suffix, quality, metadata)
    if suffix == ".png":
        return embed_png(data, metadata)
    return embed_tiff(data, metadata, pixels.shape[2] in (2, 4)) if suffix in TIFF_SUFFIXES else data


def _encode_8(pixels: np.ndarray, suffix: str, quality: int, metadata: Metadata) -> bytes:
    buffer = BytesIO()
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    options = _save_options(suffix, quality, metadata)
    image.save(buffer, Image.registered_extensions()[suffix], **options)
    return buffer.getvalue()


def _save_options(suffix: str, quality: int, metadata: Metadata) -> dict[str, object]:
    if suffix in (".jpg", ".jpeg"):
        sampling = {"subsampling": 0 if quality >= 90 else 2}
        return {"quality": quality, **sampling, **for_pillow(metadata, suffix)}
    if suffix == ".webp":
        return {"quality": quality, **for_pillow(metadata, suffix)}
    return {"compression": "tiff_adobe_deflate"} if suffix in TIFF_SUFFIXES else {}


def _encode_16(pixels: np.ndarray, suffix: str) -> bytes:
    if pixels.shape[2] > 1:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    return cv2.imencode(suffix, pixels)[1].tobytes()
