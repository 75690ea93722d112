"""The U-Net with a transformer at its narrowest of UVCGAN (Torbunov et al., arXiv 2203.02557, §3.1)."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from cyclegan.networks.attention import attention_at, check_attention
from cyclegan.networks.layers import Ending, NormName, Residual, norm_layer, smallest_multiple
from cyclegan.networks.transformer import PixelwiseTransformer


def two_convolutions(inputs: int, middle: int, outputs: int, norm: NormName) -> nn.Sequential:
    """Twice norm, 3x3 convolution and leaky ReLU: the basic block of UVCGAN's U-Net."""
    layers: list[nn.Module] = []
    for width_in, width_out in ((inputs, middle), (middle, outputs)):
        layers += [norm_layer(norm)(width_in), nn.Conv2d(width_in, width_out, 3, padding=1), nn.LeakyReLU()]
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """The way down: at each size a block whose result is kept for the way up, then a 2x2 stride.

    Args:
        widths: features at each size, from the image's on.
    """

    def __init__(self, channels: int, widths: list[int], norm: NormName) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(channels, widths[0], 3, padding=1), nn.LeakyReLU())
        before = [widths[0], *widths[:-1]]
        self.blocks = nn.ModuleList(
            two_convolutions(inputs, outputs, outputs, norm)
            for inputs, outputs in zip(before, widths, strict=True)
        )
        self.halve = nn.ModuleList(nn.Conv2d(width, width, 2, stride=2) for width in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The narrowest map, and what was kept at each size, the largest first."""
        x, kept = self.first(x), []
        for block, halve in zip(self.blocks, self.halve, strict=True):
            kept.append(block(x))
            x = halve(kept[-1])
        return x, kept


def enlarge(width: int) -> nn.Sequential:
    """Twice the height and width: pixels repeated, then a 3x3 convolution."""
    return nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(width, width, 3, padding=1))


class VitUnet(nn.Module):
    """UVCGAN's generator: U-Net 48-96-192-384, and 12 transformer blocks over the pixels at 1/16.

    Maps (N, channels, H, W) in [-1, 1] to the same shape and range; H and W are multiples of 2 ** depth,
    and may differ from the training size. With the defaults 31,360,239 parameters. Memory and time of the
    attention grow with the square of the pixels. The end is tanh, where UVCGAN, whose images are in
    [0, 1], has a sigmoid.

    Args:
        channels: of the images, in and out.
        filters: features at the image's size; they double at each halving.
        depth: halvings.
        features: of a token.
        heads: of each attention.
        blocks: transformer blocks.
        norm: of the U-Net: ``instance`` as in the paper, ``instance_affine``, ``batch`` or ``none``.
        residual: end by adding to the image, or to its ``coarse`` colours, in place of tanh (``Ending``).
        attention: self-attention on the way up, where the image's side is so many times the map's; 0: none.
    """

    reach = None  # the transformer sees the whole image
    patch_layers = (0, 1, 2, 3, 4)  # of ``encode``

    def __init__(
        self,
        channels: int = 3,
        filters: int = 48,
        depth: Annotated[int, Field(ge=1, le=6)] = 4,
        features: int = 384,
        heads: int = 6,
        blocks: int = 12,
        norm: NormName = "instance",
        residual: Residual = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        self.multiple_of = smallest_multiple(depth, residual)
        check_attention(attention, [2**level for level in range(depth)])
        widths = [filters * 2**level for level in range(depth)]
        self.down = Encoder(channels, widths, norm)
        self.transformer = PixelwiseTransformer(widths[-1], features, heads, blocks)
        self.enlarge = nn.ModuleList(enlarge(width) for width in widths)
        after = [widths[0], *widths[:-1]]
        self.up = nn.ModuleList(
            nn.Sequential(
                *two_convolutions(2 * width, width, after[level], norm),
                *attention_at(attention, 2**level, after[level]),
            )
            for level, width in enumerate(widths)
        )
        self.last = nn.Conv2d(widths[0], channels, 1)
        self.ending = Ending(residual)

    def forward(self, x: Tensor) -> Tensor:
        image = x
        x, kept = self.down(x)
        x, _ = self.transformer(x)
        for level in reversed(range(len(kept))):
            x = self.up[level](torch.cat([self.enlarge[level](x), kept[level]], dim=1))
        return self.ending(image, self.last(x))

    def encode(self, x: Tensor) -> Iterator[Tensor]:
        """The maps on the way in: the image, what is kept at each size, and what enters the transformer."""
        yield x
        narrowest, kept = self.down(x)
        yield from (*kept, narrowest)
