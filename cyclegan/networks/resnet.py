"""The ResNet generator of CycleGAN (§7.2), after Johnson et al. 2016."""

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.attention import attends_to_all, attention_at, check_attention
from cyclegan.networks.layers import (
    DownsampleName,
    Dropout,
    Ending,
    NormName,
    PaddingName,
    ReflectionPad,
    Residual,
    UpsampleName,
    downsample_layers,
    has_own_shift,
    norm_layer,
    padding_layer,
    upsample_layers,
)


class ResnetBlock(nn.Module):
    """x + F(x), F two padded 3x3 convolutions."""

    def __init__(self, channels: int, norm: NormName, padding: PaddingName, dropout: bool) -> None:
        super().__init__()
        bias = not has_own_shift(norm)
        self.block = nn.Sequential(
            padding_layer(padding),
            nn.Conv2d(channels, channels, 3, bias=bias),
            norm_layer(norm)(channels),
            nn.ReLU(inplace=True),
            *([Dropout()] if dropout else []),
            padding_layer(padding),
            nn.Conv2d(channels, channels, 3, bias=bias),
            norm_layer(norm)(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class ResnetGenerator(nn.Module):
    """c7s1-64, d128, d256, R256 x blocks, u128, u64, c7s1-3 (CycleGAN §7.2).

    Maps (N, channels, H, W) in [-1, 1] to the same shape and range; H and W are multiples of 4.
    With 64 filters, 9 blocks, 3 channels: 11,378,179 parameters.

    Args:
        channels: of the images, in and out.
        filters: features after the first layer.
        blocks: residual blocks; the paper uses 6 at 128 px and 9 from 256 px on.
        norm: ``instance`` as in the paper, ``instance_affine``, ``batch`` or ``none``.
        upsample: ``transpose`` as in the paper, ``resize``, free of checkerboards, or one of the others
            that generators from elsewhere have (``layers.upsample_layers``).
        residual: end by adding to the image, or to its ``coarse`` colours, in place of tanh (``Ending``).
        downsample: ``stride`` as in the paper, or ``blur``, free of aliasing, as in CUT.
        padding: of the blocks: ``reflect`` as in the paper, ``replicate`` or ``zero``.
        dropout: drop half of the values inside each block while training, as in pix2pix.
        attention: self-attention on the way up, where the image's side is 4, 2 or 1 times the map's; 0: none.
    """

    multiple_of = 4  # two halvings on the way down
    patch_layers = (0, 1, 2, 3, 7)  # of ``encode``; 0, 4, 8, 12 and 16 as CUT's code counts

    @property
    def reach(self) -> int | None:
        """How many pixels away an output pixel looks in any direction, norms' statistics aside.

        None with self-attention: it looks everywhere.
        """
        if attends_to_all(self):
            return None
        blocks = sum(isinstance(layer, ResnetBlock) for layer in self.layers)
        # 3 + 3 for the 7x7 ends, up to 7 going down and 11 going up (blur), two 3x3 at a quarter a block.
        return 24 + 8 * blocks

    def __init__(
        self,
        channels: int = 3,
        filters: int = 64,
        blocks: int = 9,
        norm: NormName = "instance",
        upsample: UpsampleName = "transpose",
        residual: Residual = False,
        downsample: DownsampleName = "stride",
        padding: PaddingName = "reflect",
        dropout: bool = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        check_attention(attention, [4, 2, 1])
        bias = not has_own_shift(norm)
        new_norm = norm_layer(norm)
        layers = [
            ReflectionPad(3),
            nn.Conv2d(channels, filters, 7, bias=bias),
            new_norm(filters),
            nn.ReLU(inplace=True),
        ]
        self.places = [0]  # of the layers whose maps ``encode`` gives
        for width in (filters, 2 * filters):
            self.places.append(len(layers))
            layers += downsample_layers(downsample, width, 2 * width, norm, bias)
        self.places += range(len(layers), len(layers) + blocks)
        layers += [ResnetBlock(4 * filters, norm, padding, dropout) for _ in range(blocks)]
        layers += attention_at(attention, 4, 4 * filters)
        for share, width in ((2, 4 * filters), (1, 2 * filters)):
            layers += [
                *upsample_layers(upsample, width, width // 2, bias),
                new_norm(width // 2),
                nn.ReLU(inplace=True),
                *attention_at(attention, share, width // 2),
            ]
        layers += [ReflectionPad(3), nn.Conv2d(filters, channels, 7)]
        self.layers = nn.Sequential(*layers)
        self.ending = Ending(residual)

    def forward(self, x: Tensor) -> Tensor:
        return self.ending(x, self.layers(x))

    def encode(self, x: Tensor) -> Iterator[Tensor]:
        """The maps on the way in: the padded image, both halving convolutions', each block's."""
        for number, layer in enumerate(self.layers[: self.places[-1] + 1]):
            # Not in place, where it would change the map that was given before.
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
            if number in self.places:
                yield x
