"""The PixelGAN discriminator of pix2pix (Isola et al. 2017, §6.1.2)."""

from torch import Tensor, nn

from cyclegan.networks.attention import attention_at, check_attention
from cyclegan.networks.layers import NormName, has_own_shift, norm_layer
from cyclegan.networks.spectral import normalize_spectrally


class PixelGAN(nn.Module):
    """C64-C128 of 1x1 convolutions: one score for each pixel, so that colours are judged and no texture.

    Maps (N, channels, H, W) in [-1, 1] to (N, 1, H, W) raw scores; 8,705 parameters with 64 filters,
    3 channels and instance norm (which has none).

    Args:
        channels: of the images.
        filters: features after the first layer, half of those after the second.
        norm: ``instance``, ``batch`` as in pix2pix, or ``none``.
        spectral_norm: divide each weight by its largest singular value.
        attention: 1 for self-attention over all pixels, 0 for none.
    """

    smallest = 2  # instance norm of one pixel leaves nothing of it

    def __init__(
        self,
        channels: int = 3,
        filters: int = 64,
        norm: NormName = "instance",
        spectral_norm: bool = False,
        attention: int = 0,
    ) -> None:
        super().__init__()
        check_attention(attention, [1])
        bias = not has_own_shift(norm)
        self.layers = nn.Sequential(
            nn.Conv2d(channels, filters, 1),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(filters, 2 * filters, 1, bias=bias),
            norm_layer(norm)(2 * filters),
            nn.LeakyReLU(0.2, True),
            *attention_at(attention, 1, 2 * filters),
            nn.Conv2d(2 * filters, 1, 1, bias=bias),
        )
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
