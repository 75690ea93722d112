"""The discriminators at several scales of pix2pixHD (Wang et al. 2018, §3.2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.errors import BadInput
from cyclegan.networks.attention import check_attention
from cyclegan.networks.layers import NormName
from cyclegan.networks.patchgan import PatchGAN


class MultiScalePatchGAN(nn.Module):
    """PatchGANs alike, on the image, on its half, its quarter: the coarsest sees most of it.

    Maps (N, channels, H, W) in [-1, 1] to a tuple of (N, 1, h, w) raw scores, the finest first; losses
    are summed over it (eq. 3). They are this package's PatchGANs, whose convolutions are padded by 1 where
    pix2pixHD's are by 2. With the defaults 8,294,211 parameters.

    Args:
        channels: of the images.
        filters, layers, norm, spectral_norm: of each PatchGAN.
        scales: how many.
        attention: self-attention in those that have a map of that share of the image's side; 0: none.
    """

    def __init__(
        self,
        channels: int = 3,
        filters: int = 64,
        layers: int = 3,
        norm: NormName = "instance",
        spectral_norm: bool = False,
        attention: int = 0,
        scales: int = 3,
    ) -> None:
        super().__init__()
        if scales < 1:
            raise BadInput(f"discriminator.scales: must be 1 or more, not {scales}")
        check_attention(attention, [2**level for level in range(1, layers + scales)])
        self.smallest = 2 ** (scales - 1) * (3 * 2**layers - 1) + 1  # halves are rounded up
        self.scales, self.judges = scales, nn.ModuleList()
        for scale in range(scales):
            share = attention // 2**scale
            inside = share if share in [2**level for level in range(1, layers + 1)] else 0
            self.judges.append(PatchGAN(channels, filters, layers, norm, spectral_norm, inside))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores = []
        for scale, judge in enumerate(self.judges):
            if scale:
                # pix2pixHD's: the mean of 3x3 pixels, those beyond the border not counted.
                x = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
            scores.append(judge(x))
        return tuple(scores)
