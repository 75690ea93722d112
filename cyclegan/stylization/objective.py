"""What an optimized picture is judged by: content, style and total variation, at one size."""

import torch
from torch import Tensor

from cyclegan.losses import content_loss, style_loss, total_variation
from cyclegan.networks.vgg19 import VGG19
from cyclegan.stylization.look import look
from cyclegan.stylization.options import Optimization
from cyclegan.stylization.styles import Style

SAVE_MEMORY_PIXELS = 1 << 20  # from 1024 px square on, activations are computed twice rather than kept


def saves_memory(image: Tensor) -> bool:
    """Whether (1, 3, H, W) is large enough for ``look`` to save memory."""
    return image.shape[2] * image.shape[3] >= SAVE_MEMORY_PIXELS


class Objective:
    """The weighted terms of one picture, whose targets are computed once.

    Args:
        network: VGG-19, on the device of ``content``.
        content: (1, 3, H, W) in [-1, 1].
        styles: (picture (1, 3, h, w) in [-1, 1], and what it belongs to), each.
    """

    def __init__(
        self,
        network: VGG19,
        content: Tensor,
        styles: list[tuple[Tensor, Style]],
        options: Optimization,
    ) -> None:
        self.network, self.options = network, options
        self.save_memory = saves_memory(content)
        # Where each style counts; those that count everywhere share one look.
        self.guides = [style.where for _, style in styles if style.where is not None]
        if len(self.guides) < len(styles):
            self.guides.append(None)
        with torch.no_grad():
            self.content = look(network, content, options.content, ()).content
            self.styles = []
            for image, style in styles:
                place = next(i for i, guide in enumerate(self.guides) if guide is style.where)
                targets = look(network, image, (), options.style, [style.part], saves_memory(image))
                self.styles.append((style.weight, place, targets.grams[0]))

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Each term times its weight; (1, 3, H, W), the size of the content."""
        options = self.options
        seen = look(self.network, image, options.content, options.style, self.guides, self.save_memory)
        content = [
            weight * content_loss(seen.content[layer], self.content[layer])
            for layer, weight in options.content.items()
        ]
        style = [
            weight * style_loss(seen.grams[place], targets, options.style)
            for weight, place, targets in self.styles
        ]
        return {
            "content": options.content_weight * torch.stack(content).sum(),
            "style": options.style_weight * torch.stack(style).sum(),
            "total variation": options.tv_weight * total_variation(image),
        }
