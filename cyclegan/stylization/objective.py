"""What an optimized picture is judged by: content, style and total variation, at one size."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.losses import content_loss, gram, style_loss, total_variation
from cyclegan.networks.vgg19 import VGG19
from cyclegan.stylization.options import Optimization
from cyclegan.stylization.styles import Style

SAVE_MEMORY_PIXELS = 1 << 20  # from 1024 px square on, activations are computed twice rather than kept


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
        self.layers = sorted({*options.content_layers, *options.style_layers})
        self.save_memory = content.shape[2] * content.shape[3] >= SAVE_MEMORY_PIXELS
        with torch.no_grad():
            seen = network(content, list(options.content_layers))
            self.content = {layer: seen[layer] for layer in options.content_layers}
            self.styles = [
                (style.weight, style.where, self._grams(network(image, options.style_layers), style.part))
                for image, style in styles
            ]

    def __call__(self, image: Tensor) -> dict[str, Tensor]:
        """Each term times its weight; (1, 3, H, W), the size of the content."""
        options = self.options
        seen = self.network(image, self.layers, self.save_memory)
        content = [
            weight * content_loss(seen[layer], self.content[layer])
            for layer, weight in options.content_layers.items()
        ]
        return {
            "content": options.content_weight * torch.stack(content).sum(),
            "style": options.style_weight * torch.stack(self._style(seen)).sum(),
            "total variation": options.tv_weight * total_variation(image),
        }

    def _style(self, seen: dict[str, Tensor]) -> list[Tensor]:
        everywhere = self._grams(seen) if any(where is None for _, where, _ in self.styles) else None
        return [
            weight
            * style_loss(
                everywhere if where is None else self._grams(seen, where), targets, self.options.style_layers
            )
            for weight, where, targets in self.styles
        ]

    def _grams(self, seen: dict[str, Tensor], mask: Tensor | None = None) -> dict[str, Tensor]:
        return {layer: gram(seen[layer], _guide(mask, seen[layer])) for layer in self.options.style_layers}


def _guide(mask: Tensor | None, features: Tensor) -> Tensor | None:
    """A mask as a layer sees it: (h, w) averaged down to (1, 1, H, W)."""
    if mask is None:
        return None
    return F.interpolate(mask[None, None].to(features), size=features.shape[2:], mode="area")
