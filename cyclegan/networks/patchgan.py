"""The PatchGAN discriminator of pix2pix and CycleGAN (§7.2)."""

from torch import Tensor, nn

from cyclegan.networks.attention import attention_at, check_attention
from cyclegan.networks.layers import NormName, has_own_shift, norm_layer
from cyclegan.networks.spectral import normalize_spectrally


class PatchGAN(nn.Module):
    """C64-C128-C256-C512: one score for each overlapping patch of the image.

    Maps (N, channels, H, W) in [-1, 1] to (N, 1, h, w) raw scores; with 3 layers each score sees
    70x70 pixels and there are 2,764,737 parameters (64 filters, 3 channels). The first layer has
    no normalization; slopes of LeakyReLU are 0.2.

    Args:
        channels: of the images.
        filters: features after the first layer; they double up to eight times that.
        layers: strided layers, 1 to 5: each score sees 16, 34, 70, 142 or 286 pixels.
        norm: ``instance`` as in the paper, ``batch`` or ``none``.
        spectral_norm: divide each weight by its largest singular value (Miyato et al. 2018).
        attention: self-attention after the layer where the image's side is so many times the map's: a
            power of 2 up to 2 ** layers; 0: none.
        scores: end with the layer that makes scores; else with the (N, C, h, w) features before it.
    """

    def __init__(
        self,
        channels: int = 3,
        filters: int = 64,
        layers: int = 3,
        norm: NormName = "instance",
        spectral_norm: bool = False,
        attention: int = 0,
        scores: bool = True,
    ) -> None:
        super().__init__()
        self.smallest = 3 * 2**layers  # the two layers of stride 1 take a pixel each, and one is left
        check_attention(attention, [2**depth for depth in range(1, layers + 1)])
        bias = not has_own_shift(norm)
        stack: list[nn.Module] = [
            nn.Conv2d(channels, filters, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, True),
            *attention_at(attention, 2, filters),
        ]
        width = filters
        for depth in range(1, layers + 1):
            wider = filters * min(2**depth, 8)
            # The last of these keeps the size: pix2pix' "stride 1" layer before the scores.
            stride = 1 if depth == layers else 2
            stack += [
                nn.Conv2d(width, wider, 4, stride=stride, padding=1, bias=bias),
                norm_layer(norm)(wider),
                nn.LeakyReLU(0.2, True),
            ]
            if stride == 2:
                stack += attention_at(attention, 2 ** (depth + 1), wider)
            width = wider
        if scores:
            stack.append(nn.Conv2d(width, 1, 4, stride=1, padding=1))
        self.layers = nn.Sequential(*stack)
        if spectral_norm:
            normalize_spectrally(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
