"""Sample grids: one picture that says how both generators do."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

from cyclegan.files import replacing
from cyclegan.images import from_tensor

MIN_TILE = 128  # smaller images are enlarged by whole factors, pixel by pixel
GAP = 6
BLOCK_GAP = 28
HEADER = 28
PAPER, INK = (255, 255, 255), (40, 40, 40)

LAYOUT = "cyclegan-grid"  # PNG text that says where each picture lies on the grid

Block = Sequence[tuple[str, Tensor]]


def sample_grid(blocks: Sequence[Block]) -> Image.Image:
    """Columns of images under their names, block beside block.

    Args:
        blocks: each a list of (heading, images (N, C, H, W) in [-1, 1]); all of one tile size.
    """
    tile = blocks[0][0][1].shape[-1]
    factor = max(1, -(-MIN_TILE // tile))
    side = tile * factor
    widths = [len(block) * (side + GAP) - GAP for block in blocks]
    rows = max(len(images) for block in blocks for _, images in block)
    width = sum(widths) + BLOCK_GAP * (len(blocks) - 1) + 2 * GAP
    canvas = Image.new("RGB", (width, HEADER + rows * (side + GAP) + GAP), PAPER)
    draw = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(15)
    x, columns = GAP, []
    for block, block_width in zip(blocks, widths, strict=True):
        for number, (heading, images) in enumerate(block):
            left = x + number * (side + GAP)
            columns.append({"name": heading, "left": left, "rows": len(images)})
            draw.text((left + side / 2, HEADER / 2), heading, INK, font, anchor="mm")
            for row, image in enumerate(images):
                canvas.paste(_tile(image, factor), (left, HEADER + row * (side + GAP)))
        x += block_width + BLOCK_GAP
    layout = {"top": HEADER, "pitch": side + GAP, "side": side, "tile": tile, "columns": columns}
    canvas.info[LAYOUT] = json.dumps(layout)
    return canvas


def save_grid(grid: Image.Image, path: Path) -> None:
    """Write a grid as PNG that says where its pictures lie, whole or not at all."""
    text = PngImagePlugin.PngInfo()
    text.add_text(LAYOUT, grid.info[LAYOUT])
    with replacing(path) as partial:
        grid.save(partial, "PNG", pnginfo=text)


def has_layout(path: Path) -> bool:
    """Whether ``read_grid`` can take it; the pixels are not read for that."""
    try:
        with Image.open(path) as grid:
            return LAYOUT in grid.info
    except (OSError, ValueError):
        return False


def read_grid(path: Path) -> dict[str, list[Image.Image]]:
    """The pictures of a saved grid by column, at the size that they had before they were enlarged.

    Raises:
        KeyError: it does not say where they lie.
    """
    with Image.open(path) as grid:
        layout = json.loads(grid.info[LAYOUT])
        columns: dict[str, list[Image.Image]] = {}
        for column in layout["columns"]:
            tiles = columns.setdefault(column["name"], [])
            for row in range(column["rows"]):
                left, upper = column["left"], layout["top"] + row * layout["pitch"]
                tile = grid.crop((left, upper, left + layout["side"], upper + layout["side"]))
                # Each pixel was repeated; to take one of each undoes it exactly.
                tiles.append(tile.resize((layout["tile"], layout["tile"]), Image.Resampling.NEAREST))
    return columns


def _tile(image: Tensor, factor: int) -> Image.Image:
    pixels = from_tensor(image)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    tile = Image.fromarray(pixels)
    return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
