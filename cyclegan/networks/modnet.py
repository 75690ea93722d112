"""The generator of UVCGANv2 (Torbunov et al., arXiv 2303.16280, §3.1): a decoder driven by a style."""

from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cyclegan.networks.attention import attention_at, check_attention
from cyclegan.networks.layers import Ending, ReflectionPad, Residual, smallest_multiple, summing
from cyclegan.networks.transformer import PixelwiseTransformer
from cyclegan.networks.vit_unet import Encoder, enlarge

EPSILON = 1e-6  # UVCGANv2's


class ModulatedConvolution(nn.Module):
    """A 3x3 convolution whose weights the style scales (StyleGAN2, Karras et al. 2020, §2.2).

    Scaling the input's channels is scaling the weights (eq. 1), and dividing the output by their norm over
    inputs and taps (eq. 3) keeps it at unit variance; both are done to the maps, so that images of a batch
    may have styles of their own. The scales are 1 + gate * affine(style), the gate 0 at first (UVCGANv2).
    """

    def __init__(self, inputs: int, outputs: int, features: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.affine = nn.Linear(features, inputs)
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """(N, inputs, H, W) and (N, features) to (N, outputs, H, W)."""
        scale = 1 + self.gate * self.affine(style)
        made = self.convolution(x * scale[:, :, None, None])
        # In fp32, also under autocast: squares of small weights vanish in half precision.
        with torch.autocast(x.device.type, enabled=False):
            wide = summing(made.dtype)
            power = self.convolution.weight.to(wide).square().sum(dim=(2, 3))
            norm = torch.rsqrt(scale.to(wide).square() @ power.T + EPSILON).to(made.dtype)
        return made * norm[:, :, None, None] + self.bias[:, None, None].to(made.dtype)


class ModulatedBlock(nn.Module):
    """Two modulated convolutions, each with a leaky ReLU."""

    def __init__(self, inputs: int, middle: int, outputs: int, features: int) -> None:
        super().__init__()
        self.first = ModulatedConvolution(inputs, middle, features)
        self.second = ModulatedConvolution(middle, outputs, features)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        leaky = nn.functional.leaky_relu
        return leaky(self.second(leaky(self.first(x, style)), style))


class StyleEncoder(nn.Module):
    """The style of a picture, without its places: strided convolutions and their mean (MUNIT §B.1).

    Maps (N, channels, H, W) of any size to (N, features) of mean 0 and variance 1. No instance norm, which
    would take the style away.
    """

    def __init__(self, channels: int, filters: int, features: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [ReflectionPad(3), nn.Conv2d(channels, filters, 7), nn.ReLU()]
        width = filters
        for wider in (2 * filters, 4 * filters, 4 * filters, 4 * filters):
            layers += [nn.Conv2d(width, wider, 4, stride=2, padding=1), nn.ReLU()]
            width = wider
        self.layers = nn.Sequential(*layers)
        self.code = nn.Linear(width, features)
        # Without it codes begin near 0 and a decoder begins deaf to them; so it would with the usual 1e-5.
        self.norm = nn.LayerNorm(features, eps=1e-12, elementwise_affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.code(self.layers(x).mean(dim=(2, 3))))


class ModNet(nn.Module):
    """UVCGANv2's generator: an encoder, a transformer with one more token, a decoder that the token drives.

    Maps (N, channels, H, W) in [-1, 1] to the same shape and range; H and W are multiples of 2 ** depth, with
    coarse colours (``residual``) of 4 at least.
    With the defaults 32,192,231 parameters, 33,822,023 with a reference. The end is tanh, where UVCGANv2
    has a sigmoid.

    ``style`` says where the token comes from that enters the transformer. ``token``: it is learned, as in
    UVCGANv2, so that each image makes its own style of it. ``reference``: an encoder makes it of a picture
    of the target domain, so that one generator gives many renderings; without a picture it is the mean
    over some that it was trained with, which the generator is saved with.

    Args:
        channels: of the images, in and out.
        filters: features at the image's size; they double at each halving.
        depth: halvings.
        features: of a token.
        heads: of each attention.
        blocks: transformer blocks.
        style: ``token`` or ``reference``.
        residual: end by adding to the image, or to its ``coarse`` colours, in place of tanh (``Ending``).
        attention: self-attention on the way up, where the image's side is so many times the map's; 0: none.
    """

    reach = None  # the transformer sees the whole image
    keeps_variance = True  # it has no norms, but for those of tokens
    patch_layers = (0, 1, 2, 3, 4)  # of ``encode``

    def __init__(
        self,
        channels: int = 3,
        filters: int = 48,
        depth: Annotated[int, Field(ge=1, le=6)] = 4,
        features: int = 384,
        heads: int = 6,
        blocks: int = 12,
        style: Literal["token", "reference"] = "token",
        residual: Residual = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        self.multiple_of = smallest_multiple(depth, residual)
        self.takes_reference = style == "reference"
        check_attention(attention, [2**level for level in range(depth)])
        widths = [filters * 2**level for level in range(depth)]
        self.down = Encoder(channels, widths, "none")
        self.transformer = PixelwiseTransformer(widths[-1], features, heads, blocks)
        if self.takes_reference:
            self.encoder = StyleEncoder(channels, filters, features)
            self.register_buffer("style_code", torch.zeros(features))
        else:
            self.style_code = nn.Parameter(torch.randn(features))
        self.enlarge = nn.ModuleList(enlarge(width) for width in widths)
        after = [widths[0], *widths[:-1]]
        self.up = nn.ModuleList(
            ModulatedBlock(2 * width, width, after[level], features) for level, width in enumerate(widths)
        )
        self.attention = nn.ModuleList(
            nn.Sequential(*attention_at(attention, 2**level, width)) for level, width in enumerate(after)
        )
        self.last = nn.Conv2d(widths[0], channels, 1)
        self.ending = Ending(residual)

    def style_of(self, pictures: Tensor) -> Tensor:
        """(N, channels, H, W) in [-1, 1], of the target domain, to their style codes (N, features)."""
        return self.encoder(pictures)

    @torch.no_grad()
    def use_style_of(self, pictures: Iterable[Tensor]) -> None:
        """From now on, the style where no reference is given: the mean over pictures (1, channels, h, w)."""
        self.style_code.copy_(torch.cat([self.style_of(picture) for picture in pictures]).mean(dim=0))

    def forward(self, x: Tensor, reference: Tensor | None = None) -> Tensor:
        """Translate.

        Args:
            x: (N, channels, H, W).
            reference: (N, channels, h, w), the picture whose style each image is to have; only where
                ``style`` is ``reference``.
        """
        style = self.style_code.expand(x.shape[0], -1) if reference is None else self.style_of(reference)
        image = x
        x, kept = self.down(x)
        x, style = self.transformer(x, style)
        for level in reversed(range(len(kept))):
            x = self.up[level](torch.cat([self.enlarge[level](x), kept[level]], dim=1), style)
            x = self.attention[level](x)
        return self.ending(image, self.last(x))

    def encode(self, x: Tensor) -> Iterator[Tensor]:
        """The maps on the way in: the image, what is kept at each size, and what enters the transformer."""
        yield x
        narrowest, kept = self.down(x)
        yield from (*kept, narrowest)
