"""Sample grids: one picture that says how both generators do."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cyclegan.images import from_tensor

MIN_TILE = 128  # smaller images are enlarged by whole factors, pixel by pixel
GAP = 6
BLOCK_GAP = 28
HEADER = 28
PAPER, INK = (255, 255, 255), (40, 40, 40)

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
    x = GAP
    for block, block_width in zip(blocks, widths, strict=True):
        for number, (heading, images) in enumerate(block):
            left = x + number * (side + GAP)
            draw.text((left + side / 2, HEADER / 2), heading, INK, font, anchor="mm")
            for row, image in enumerate(images):
                canvas.paste(_tile(image, factor), (left, HEADER + row * (side + GAP)))
        x += block_width + BLOCK_GAP
    return canvas


def _tile(image: Tensor, factor: int) -> Image.Image:
    pixels = from_tensor(image)
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    tile = Image.fromarray(pixels)
    return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
