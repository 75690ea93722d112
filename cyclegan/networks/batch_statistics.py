"""UVCGANv2's discriminator (Torbunov et al., arXiv 2303.16280, §3.2): a patch beside those seen before."""

import torch
from torch import Tensor, nn

from cyclegan.networks.layers import NormName
from cyclegan.networks.patchgan import PatchGAN

EPSILON = 1e-6


class BatchStatisticsPatchGAN(nn.Module):
    """A PatchGAN body, and a head that also gets how much features vary over images.

    Maps (N, channels, H, W) in [-1, 1] to (N, 1, h, w) raw scores; 5,125,569 parameters with 64 filters
    and 3 channels. The variation is the minibatch standard deviation of Karras et al. 2018 (§3): of each
    feature at each place, averaged to one number, which is one more map. It is taken over an image and the
    features of the last few others of its kind, ``queue`` of them, that earlier steps have kept: a batch
    of one and three kept is what UVCGANv2 trains with. Images of one batch do not see each other, so that
    nothing depends on how a batch is divided among processes.

    Args:
        channels: of the images.
        filters, layers, norm: of the body.
        spectral_norm: of the body, as in UVCGANv2, whose head goes without.
        attention: self-attention in the body where the image's side is so many times the map's; 0: none.
        queue: how many images' features are kept, of reals and of fakes each.
    """

    def __init__(
        self,
        channels: int = 3,
        filters: int = 64,
        layers: int = 3,
        norm: NormName = "instance",
        spectral_norm: bool = False,
        attention: int = 0,
        queue: int = 3,
    ) -> None:
        super().__init__()
        self.queue = queue
        self.body = PatchGAN(channels, filters, layers, norm, spectral_norm, attention, scores=False)
        self.smallest = self.body.smallest
        width = filters * min(2**layers, 8)
        self.head = nn.Sequential(
            nn.Conv2d(width + 1, width, 3, padding=1), nn.LeakyReLU(), nn.Conv2d(width, 1, 3, padding=1)
        )

    def judge(self, x: Tensor, others: Tensor | None) -> tuple[Tensor, Tensor]:
        """Scores, and the features that they rest on.

        Args:
            x: (N, channels, H, W).
            others: (Q, C, h, w), features of earlier images; (N, Q, C, h, w), for each image its own;
                or None at the start.
        """
        features = self.body(x)
        together = features[:, None]
        if others is not None:
            others = others.to(features.dtype).expand(len(x), *others.shape[-4:])
            together = torch.cat([together, others], dim=1)
        deviation = (together.var(dim=1, correction=0) + EPSILON).sqrt().mean(dim=(1, 2, 3), keepdim=True)
        statistic = deviation.expand(-1, 1, *features.shape[2:])
        return self.head(torch.cat([features, statistic], dim=1)), features

    def forward(self, x: Tensor) -> Tensor:
        return self.judge(x, None)[0]
