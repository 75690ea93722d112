"""The U-Net generator of pix2pix (Isola et al. 2017, §6.1.1), after Ronneberger et al. 2015."""

from collections.abc import Iterator
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from cyclegan.networks.attention import attention_at, check_attention
from cyclegan.networks.layers import Dropout, Ending, NormName, Residual, has_own_shift, norm_layer


class UnetGenerator(nn.Module):
    """C64-C128-C256-C512 x (depth - 3), and the same way back with a skip at each size.

    Maps (N, channels, H, W) in [-1, 1] to the same shape and range; H and W are multiples of 2 ** depth.
    With 64 filters and 3 channels: 54,409,603 parameters at depth 8 (pix2pix' for 256 px) and 41,825,667
    at depth 7 (for 128 px), 4,352 and 3,328 more with batch norm. Being able to copy its input through the
    outermost skip, it keeps pixels in place better than ``resnet``, and moves shapes worse.

    Args:
        channels: of the images, in and out.
        filters: features after the first layer; they double up to eight times that.
        depth: halvings on the way down, 5 to 10. A recipe that does not say takes as many as lead from its
            training size to one pixel (``for_size``).
        norm: ``instance`` as in CycleGAN, ``batch`` as in pix2pix, ``instance_affine`` or ``none``.
        dropout: drop half of the values in the innermost layers while training, as in pix2pix.
        residual: end by adding to the image, or to its ``coarse`` colours, in place of tanh (``Ending``).
        attention: self-attention on the way up, where the image's side is so many times the map's; 0: none.
    """

    reach = None  # its narrowest maps see the whole image
    patch_layers = (0, 1, 2, 3, 4)  # of ``encode``

    @staticmethod
    def for_size(size: int) -> dict[str, int]:
        """What follows from the training size: depth 8 from 256 px, 7 from 128, as in pix2pix."""
        halvings = (size & -size).bit_length() - 1
        return {"depth": min(10, max(5, halvings))}

    def __init__(
        self,
        channels: int = 3,
        filters: int = 64,
        depth: Annotated[int, Field(ge=5, le=10)] = 8,
        norm: NormName = "instance",
        dropout: bool = False,
        residual: Residual = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        self.multiple_of = 2**depth
        check_attention(attention, [2**level for level in range(1, depth)])
        bias = not has_own_shift(norm)
        new_norm = norm_layer(norm)
        widths = [filters * min(2**level, 8) for level in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (inputs, outputs) in enumerate(zip([channels, *widths], widths, strict=False)):
            layers: list[nn.Module] = [nn.LeakyReLU(0.2)] if level > 0 else []
            layers.append(nn.Conv2d(inputs, outputs, 4, stride=2, padding=1, bias=bias))
            # The first layer sees the image; the innermost may be one pixel, whose variance is none.
            if 0 < level < depth - 1:
                layers.append(new_norm(outputs))
            self.down.append(nn.Sequential(*layers))
        for level in reversed(range(1, depth)):
            inputs = widths[level] if level == depth - 1 else 2 * widths[level]
            outputs = widths[level - 1]
            layers = [nn.ReLU(inplace=True)]
            layers.append(nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1, bias=bias))
            layers.append(new_norm(outputs))
            if dropout and 4 <= level < depth - 1:
                layers.append(Dropout())
            layers += attention_at(attention, 2**level, outputs)
            self.up.append(nn.Sequential(*layers))
        last = nn.ConvTranspose2d(2 * filters, channels, 4, stride=2, padding=1)
        self.up.append(nn.Sequential(nn.ReLU(inplace=True), last))
        self.ending = Ending(residual)

    def forward(self, x: Tensor) -> Tensor:
        image, skips = x, []
        for layer in self.down:
            x = layer(x)
            skips.append(x)
        x = skips.pop()
        for layer in self.up[:-1]:
            x = torch.cat([skips.pop(), layer(x)], dim=1)
        return self.ending(image, self.up[-1](x))

    def encode(self, x: Tensor) -> Iterator[Tensor]:
        """The maps on the way in: the image, and what each halving makes of it."""
        yield x
        for layer in self.down:
            x = layer(x)
            yield x
