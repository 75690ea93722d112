"""TIFF files larger than memory: read by regions, written band by band (slides, satellites, scans)."""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tifffile

from cyclegan.files import replacing
from cyclegan.images import BadImage, as_channels

BLOCK = 256  # side of the tiles that are written; readers of slides expect such
CACHE_BYTES = 256 * 2**20
SLIDE_PIXELS = 1 << 26  # TIFFs beyond this are read by regions, never as a whole


def slide_size(path: Path) -> tuple[int, int]:
    """Height and width from the header, whatever the file's size.

    Raises:
        BadImage: not a TIFF.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return page.imagelength, page.imagewidth
    except (OSError, tifffile.TiffFileError, IndexError) as error:
        raise BadImage(f"{path}: cannot be read as TIFF ({error})") from error


class TiffSource:
    """Reads regions of a TIFF's first picture, decoding only the strips or tiles that they touch.

    8 or 16 bits a channel, grey or RGB (an alpha channel is left out); stripped or tiled, any compression
    that tifffile decodes.

    Args:
        path: the file; it stays open.
        channels: 1 or 3, what the network takes. A grey file is repeated three times; colour becomes
            luminance (BT.601).

    Raises:
        BadImage: not such a TIFF.
    """

    def __init__(self, path: Path, channels: int) -> None:
        self.path, self.channels = path, channels
        try:
            self.file = tifffile.TiffFile(path)
            self.page = self.file.pages.first
        except (OSError, tifffile.TiffFileError, IndexError) as error:
            raise BadImage(f"{path}: cannot be read as TIFF ({error})") from error
        page = self.page
        if page.dtype not in (np.uint8, np.uint16) or page.photometric not in (0, 1, 2, 6):
            raise BadImage(f"{path}: a TIFF of this size must be grey or RGB with 8 or 16 bits a channel")
        if page.samplesperpixel > 1 and page.planarconfig != 1:
            raise BadImage(
                f"{path}: a TIFF of this size must hold its channels side by side (planar config 1)"
            )
        if page.tags.valueof(274, 1) != 1:
            raise BadImage(f"{path}: a TIFF of this size must be stored upright (orientation 1)")
        self.height, self.width, self.dtype = page.imagelength, page.imagewidth, np.dtype(page.dtype)
        self.block_height = page.tilelength if page.is_tiled else page.rowsperstrip
        self.block_width = page.tilewidth if page.is_tiled else page.imagewidth
        self.columns = -(-self.width // self.block_width)
        self.icc_profile: bytes | None = page.tags.valueof(34675)
        self.cache: OrderedDict[int, np.ndarray] = OrderedDict()

    def close(self) -> None:
        self.file.close()

    def read(self, top: int, bottom: int, left: int, right: int) -> np.ndarray:
        region = np.empty((bottom - top, right - left, self.channels), self.dtype)
        for row in range(top // self.block_height, -(-bottom // self.block_height)):
            for column in range(left // self.block_width, -(-right // self.block_width)):
                self._copy(region, top, left, row, column)
        return region

    def _copy(self, region: np.ndarray, top: int, left: int, row: int, column: int) -> None:
        """The part of a block that falls into the region."""
        y, x = row * self.block_height, column * self.block_width
        block = self._block(row * self.columns + column)
        bottom = min(y + block.shape[0], top + region.shape[0], self.height)
        right = min(x + block.shape[1], left + region.shape[1], self.width)
        y0, x0 = max(y, top), max(x, left)
        region[y0 - top : bottom - top, x0 - left : right - left] = block[
            y0 - y : bottom - y, x0 - x : right - x
        ]

    def _block(self, index: int) -> np.ndarray:
        if index in self.cache:
            self.cache.move_to_end(index)
            return self.cache[index]
        page = self.page
        handle = self.file.filehandle
        handle.seek(page.dataoffsets[index])
        try:
            data = handle.read(page.databytecounts[index])
            decoded, _, _ = page.decode(data, index, jpegtables=page.jpegtables)
        except (OSError, ValueError, RuntimeError) as error:
            remedy = "; pip install 'cyclegan[tiff]'" if "imagecodecs" in str(error) else ""
            raise BadImage(f"{self.path}: cannot be decoded ({error}){remedy}") from error
        if decoded is None:  # a hole: TIFF lets writers leave out empty tiles
            decoded = np.zeros((1, self.block_height, self.block_width, page.samplesperpixel), self.dtype)
        block = self._as_channels(decoded[0][:, :, :3] if page.samplesperpixel > 3 else decoded[0])
        self.cache[index] = block
        # At least one row of blocks stays: the next tile to the right wants the same rows.
        while (
            len(self.cache) > self.columns and sum(kept.nbytes for kept in self.cache.values()) > CACHE_BYTES
        ):
            self.cache.popitem(last=False)
        return block

    def _as_channels(self, block: np.ndarray) -> np.ndarray:
        if self.page.photometric == 0:
            block = np.iinfo(self.dtype).max - block
        return as_channels(block, self.channels)


def write_tiff(
    path: Path,
    bands: Iterator[np.ndarray],
    source: TiffSource,
    xmp: bytes | None = None,
    before: Callable[[Path], None] | None = None,
) -> None:
    """Write bands of rows, (rows, W, C) from the top, as a tiled BigTIFF, whole or not at all.

    Deflate with a predictor; the source's size, depth, resolution and colour profile.

    Raises:
        OSError: no room, or no permission.
    """
    colour = source.channels > 1
    tags = [(700, "B", len(xmp), xmp, True)] if xmp is not None else []
    with replacing(path, before) as partial, tifffile.TiffWriter(partial, bigtiff=True) as writer:
        writer.write(
            _blocks(bands, source.width),
            shape=(source.height, source.width, 3) if colour else (source.height, source.width),
            dtype=source.dtype,
            tile=(BLOCK, BLOCK),
            photometric="rgb" if colour else "minisblack",
            compression="adobe_deflate",
            predictor=True,
            iccprofile=source.icc_profile,
            resolution=source.page.resolution,
            resolutionunit=source.page.resolutionunit,
            extratags=tags,
            metadata=None,
        )


def _blocks(bands: Iterator[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Bands of any height, cut into the file's tiles, row by row; what is left over waits for the next."""
    waiting: list[np.ndarray] = []
    rows = 0
    for band in bands:
        waiting.append(band)
        rows += len(band)
        if rows >= BLOCK:
            whole = np.concatenate(waiting)
            cut = rows // BLOCK * BLOCK
            yield from _row_of_blocks(whole[:cut], width)
            waiting, rows = [whole[cut:]], rows - cut
    if rows:
        yield from _row_of_blocks(np.concatenate(waiting), width)


def _row_of_blocks(rows: np.ndarray, width: int) -> Iterator[np.ndarray]:
    for top in range(0, len(rows), BLOCK):
        for left in range(0, width, BLOCK):
            block = np.zeros((BLOCK, BLOCK, rows.shape[2]), rows.dtype)
            part = rows[top : top + BLOCK, left : left + BLOCK]
            block[: part.shape[0], : part.shape[1]] = part
            yield block if rows.shape[2] > 1 else block[:, :, 0]
