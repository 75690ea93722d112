"""The transformer of fast arbitrary stylization (Ghiasi et al. 2017, §3 and Table 1), at any image size.

A small image-to-image network in which the style is nothing but the scale and the shift of 13 instance
norms; both are linear in a style vector of 100 numbers, which another network predicts from a picture.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STYLE_NUMBERS = 100
WIDTHS = (8, 16, 32)  # of the mobile variant; the paper's own are 32, 64, 128
BLOCKS = 5


class ReflectConv(nn.Conv2d):
    """A convolution that keeps the size, mirrored at the border, or halves it with ``stride`` 2."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__(
            inputs,
            outputs,
            kernel,
            stride,
            kernel // 2,
            padding_mode="reflect",
            bias=stride == 2 or inputs == 3,
        )


class StyledConv(nn.Module):
    """A convolution and an instance norm whose scale and shift come from the style vector."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = ReflectConv(inputs, outputs, kernel)
        self.norm = nn.InstanceNorm2d(outputs, eps=1e-5, affine=True)
        self.scale = nn.Linear(STYLE_NUMBERS, outputs)
        self.shift = nn.Linear(STYLE_NUMBERS, outputs)

    def use_style(self, vector: Tensor) -> None:
        self.norm.weight.data = self.scale(vector)
        self.norm.bias.data = self.shift(vector)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class ArbitraryStyle(nn.Module):
    """(N, 3, H, W) in [-1, 1] to the same shape, H and W multiples of 4, in the style of ``use_style``."""

    multiple_of = 4
    # Two 9x9 convolutions and two of 3x3 at full, half and a quarter of the resolution, ten at a quarter;
    # enlarged by nearest neighbours, which look up to three pixels back.
    reach = 4 + 1 + 2 + BLOCKS * 2 * 4 + 2 + 1 + 4 + 3

    def __init__(self) -> None:
        super().__init__()
        first, second, third = WIDTHS
        self.contract = nn.ModuleList(
            [ReflectConv(3, first, 9), ReflectConv(first, second, 3, 2), ReflectConv(second, third, 3, 2)]
        )
        self.residual = nn.ModuleList(
            nn.ModuleList([StyledConv(third, third, 3), StyledConv(third, third, 3)]) for _ in range(BLOCKS)
        )
        self.expand = nn.ModuleList(
            [StyledConv(third, second, 3), StyledConv(second, first, 3), StyledConv(first, 3, 9)]
        )

    @torch.no_grad()
    def use_style(self, vector: Tensor) -> None:
        """From now on paint in this style: (100,) numbers."""
        for module in self.modules():
            if isinstance(module, StyledConv):
                module.use_style(vector)

    def forward(self, images: Tensor) -> Tensor:
        x = (images + 1) / 2
        for layer in self.contract:
            x = F.relu(layer(x))
        for first, second in self.residual:
            x = x + second(F.relu(first(x)))
        for layer in self.expand[:2]:
            x = F.relu(layer(F.interpolate(x, scale_factor=2.0, mode="nearest")))
        return torch.sigmoid(self.expand[2](x)) * 2 - 1


def load_arbitrary_style(weights: Mapping[str, Tensor]) -> ArbitraryStyle:
    """The network with Magenta's weights.

    Args:
        weights: by the names of its TensorFlow graph (``transformer/contract/conv1/weights``, ...),
            convolutions as (out, in, height, width).
    """
    network = ArbitraryStyle()
    with torch.no_grad():
        for number, layer in enumerate(network.contract, 1):
            layer.weight.copy_(weights[f"transformer/contract/conv{number}/weights"])
            layer.bias.copy_(weights[f"transformer/contract/conv{number}/Conv2D_bias"])
        for block, layers in enumerate(network.residual, 1):
            for number, layer in enumerate(layers, 1):
                _load(layer, weights, f"transformer/residual/residual{block}/conv{number}")
        for number, layer in enumerate(network.expand, 1):
            _load(layer, weights, f"transformer/expand/conv{number}/conv")
    return network.eval().requires_grad_(False)


def _load(layer: StyledConv, weights: Mapping[str, Tensor], name: str) -> None:
    # The norm takes a constant away again, so these convolutions need no bias.
    layer.conv.weight.copy_(weights[f"{name}/weights"])
    for part, norm in ((layer.shift, "Conv"), (layer.scale, "Conv_1")):
        part.weight.copy_(weights[f"style_params/{name}/StyleNorm/{norm}/weights"].flatten(1))
        part.bias.copy_(weights[f"style_params/{name}/StyleNorm/{norm}/Conv2D_bias"])
