"""A discriminator on fixed features, after Projected GANs (Sauer et al., arXiv 2111.01007)."""

import torch
from torch import Tensor, nn

from cyclegan.errors import BadInput
from cyclegan.networks.attention import attention_at, check_attention
from cyclegan.networks.layers import blur
from cyclegan.networks.spectral import normalize_spectrally
from cyclegan.networks.vgg19 import WIDTHS, pretrained_vgg19

TAPS = ("relu1_2", "relu2_2", "relu3_4")


class ProjectedPatchGAN(nn.Module):
    """Patches of VGG-19's activations judged, by a small head for each of the first blocks.

    Maps (N, channels, H, W) in [-1, 1] to a tuple of (N, 1, h, w) raw scores, the finest first; losses are
    summed over it. What two looks differ in at the level of edges, colours and textures VGG-19 tells apart
    from the first step on, where a discriminator that begins with noise needs thousands. Only the heads
    learn; VGG-19's weights are no part of a checkpoint. Of the paper's random mixing of channels and scales
    nothing is taken: it is there to keep a discriminator off single features of deep layers.

    Args:
        channels: of the images.
        filters: features of a head's first layer.
        layers: strided layers of the first block's head; each later one has one less, and one at least.
        spectral_norm: divide each weight of the heads by its largest singular value, as in the paper.
        scales: blocks of VGG-19 that are looked at, 1 to 3.
        detail: pixels, the standard deviation of a blur. Where it is not 0, images less their blur are
            looked at, at twice the contrast: how things are drawn, and neither their colours nor the light.
        attention: self-attention after the heads' strided layers where the image's side is so many times
            the map's; 0: none.

    Raises:
        BadInput: more scales than there are, or VGG-19's weights are not installed.
    """

    def __init__(
        self,
        channels: int = 3,
        filters: int = 64,
        layers: int = 2,
        spectral_norm: bool = True,
        scales: int = 2,
        detail: float = 0.0,
        attention: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= scales <= len(TAPS):
            raise BadInput(f"discriminator.scales: must be 1 to {len(TAPS)} for projected, not {scales}")
        check_attention(attention, [2**level for level in range(1, max(layers, scales) + 1)])
        self.detail, self.scales = detail, scales
        strided = [max(1, layers - block) for block in range(scales)]
        self.smallest = max(2 * 2 ** (block + many) for block, many in enumerate(strided))
        # Until ``calibrate`` says how large they are: VGG-19 wants images up to 255, and so are its features.
        for block in range(scales):
            self.register_buffer(f"mean_{block}", torch.zeros(1, WIDTHS[block], 1, 1))
            self.register_buffer(f"deviation_{block}", torch.full((1, WIDTHS[block], 1, 1), 255.0))
        # In a tuple, so that it is no submodule: neither optimized, saved, nor exchanged by processes.
        self.fixed = (pretrained_vgg19(),)
        self.heads = nn.ModuleList(
            _head(WIDTHS[block], filters, many, 2**block, attention) for block, many in enumerate(strided)
        )
        if spectral_norm:
            normalize_spectrally(self.heads)

    def features(self, x: Tensor) -> list[Tensor]:
        """VGG-19's activations of (N, channels, H, W) in [-1, 1], one (N, C, h, w) for each head."""
        taps = TAPS[: len(self.heads)]
        if self.detail > 0:
            x = (2 * (x - blur(x, self.detail))).clamp(-1, 1)
        found = self.fixed[0].to(x.device)(x.expand(-1, 3, -1, -1), taps)
        return [found[tap] for tap in taps]

    @torch.no_grad()
    def calibrate(self, images: Tensor) -> None:
        """Take each feature from here on in units of its spread over ``images``, from its mean there.

        VGG-19 is not normalized, and a few large features would hide all others. The figures are buffers,
        and so part of a checkpoint.

        Args:
            images: (N, channels, H, W) in [-1, 1], some of both domains' training images.
        """
        for block, features in enumerate(self.features(images)):
            getattr(self, f"mean_{block}").copy_(features.mean(dim=(0, 2, 3), keepdim=True))
            # A feature that the images lack stays small when it shows up after all.
            deviation = features.std(dim=(0, 2, 3), keepdim=True)
            getattr(self, f"deviation_{block}").copy_(deviation.clamp_min(0.05 * deviation.mean()))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        scores = []
        for block, (head, features) in enumerate(zip(self.heads, self.features(x), strict=True)):
            mean, deviation = getattr(self, f"mean_{block}"), getattr(self, f"deviation_{block}")
            scores.append(head((features - mean) / deviation))
        return tuple(scores)


def _head(inputs: int, filters: int, layers: int, share: int, attention: int) -> nn.Sequential:
    """Strided layers and scores, on features of 1 / share of the image's side."""
    stack: list[nn.Module] = []
    for depth in range(layers):
        width = filters * 2**depth
        stack += [nn.Conv2d(inputs, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2, True)]
        stack += attention_at(attention, share * 2 ** (depth + 1), width)
        inputs = width
    return nn.Sequential(*stack, nn.Conv2d(inputs, 1, 4, padding=1))
