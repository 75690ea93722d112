"""Optimization as a function of a batch of images, with what a record and a label say of each method."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from cyclegan.datasets.fetch import sha256_of
from cyclegan.images import WHITE
from cyclegan.networks.inference import inference_device, memory_bytes
from cyclegan.networks.vgg19 import pretrained_vgg19, vgg19_file
from cyclegan.stylization.fast import FastStyle, fast_network, model_file
from cyclegan.stylization.optimization import OnStep, optimize
from cyclegan.stylization.options import Optimization
from cyclegan.stylization.styles import Style, resized, scaled_shape

Method = Literal["optimize", "fast"]
# Measured, past 1024 px square: 1.6 GiB at 512 px, 6.2 at 2048 (docs/stylize.md).
BYTES_PER_PIXEL = 1200
# Measured, past 1024 px square: 470, of a style picture that is looked at once.
STYLE_BYTES_PER_PIXEL = 500
SYSTEMS: Mapping[Method, str] = {
    "optimize": "neural style transfer by optimization (Gatys et al. 2016), VGG-19",
    "fast": "fast arbitrary stylization (Ghiasi et al. 2017), Magenta's networks",
}
# Of the weights, and of what they were trained on.
LICENCES: Mapping[Method, Mapping[str, str]] = {
    "optimize": {"VGG-19": "CC BY 4.0, K. Simonyan and A. Zisserman; trained on ImageNet"},
    "fast": {"Magenta": "Apache-2.0; trained on ImageNet, Painter by Numbers and DTD"},
}


@dataclass(frozen=True)
class Images:
    """What images both methods take: colour, of any size, on white where transparent."""

    channels: int = 3
    multiple_of: int = 1
    background: tuple[int, int, int] = WHITE


class Stylizer:
    """Images (N, 3, H, W) in [-1, 1] to the same shape, each optimized for itself.

    They come one after the other, and a batch is given back when all are done: one image a call is best.

    Args:
        styles: whose look they get.
        options: as ``optimize`` takes them.
        device: default the fastest there is.
        on_step: told after each step; what it returns ends that image's optimization when it is true.
    """

    name, precision = "optimize", "fp32"
    config = Images()

    def __init__(
        self,
        styles: Sequence[Style],
        options: Optimization,
        device: torch.device | str | None = None,
        on_step: OnStep | None = None,
    ) -> None:
        self.device = inference_device() if device is None else torch.device(device)
        self.network = pretrained_vgg19().to(self.device)
        self.weights_sha256 = sha256_of(vgg19_file())
        self.styles, self.options, self.on_step = styles, options, on_step
        self.fast: FastStyle | None = None
        if options.start == "fast":
            whole = [replace(style, part=None) for style in styles]
            self.fast = fast_network(whole).to(self.device)
            self.fast.checks_masks = False  # it is shown the coarsest scale alone

    def __call__(self, images: Tensor) -> Tensor:
        # Callers translate in inference mode; here gradients are the work.
        with torch.inference_mode(False), torch.enable_grad():
            return torch.cat([self._one(image.clone()) for image in images])

    def computed_at(self, height: int, width: int) -> tuple[int, int]:
        """Height and width at which a picture of that size is computed, at last."""
        return self.options.scales(height, width)[-1]

    def _one(self, image: Tensor) -> Tensor:
        needed, there = self._bytes_for(*image.shape[1:]), memory_bytes(self.device)
        if needed > there:  # Linux would kill
            raise MemoryError(f"an optimization of {needed >> 20} MiB in {there >> 20}")
        made = optimize(self.network, image, self.styles, self.options, self.on_step, self._first)
        return resized(made[None], *image.shape[1:]).clamp(-1, 1)

    def _bytes_for(self, height: int, width: int) -> int:
        """Memory that a picture of that size takes, or a style picture where it is more (``style_scale``)."""
        finest = self.computed_at(height, width)
        pixels = self.options.style_pixels(*finest)
        largest = max((math.prod(scaled_shape(style, pixels)) for style in self.styles), default=0)
        return max(BYTES_PER_PIXEL * math.prod(finest), STYLE_BYTES_PER_PIXEL * largest)

    def _first(self, content: Tensor) -> Tensor:
        assert self.fast is not None
        with torch.no_grad():
            return self.fast(content)


def style_digests(styles: Sequence[Style]) -> str:
    """For the label: SHA-256 of each style picture."""
    return ", ".join(style.record["sha256"] for style in styles if style.record)


def weights_digest(method: Method) -> str:
    """SHA-256 of the file that a method's network comes from: the one that makes the picture."""
    return sha256_of(vgg19_file() if method == "optimize" else model_file("arbitrary_transform"))


def other_digests(method: Method, options: Optimization) -> dict[str, str]:
    """SHA-256 of the files of all other networks that a picture comes from, for the record."""
    used = networks_of(method, options)
    digests = {"fast_sha256": weights_digest("fast")} if used != (method,) else {}
    if "fast" in used:
        digests["predictor_sha256"] = sha256_of(model_file("arbitrary_predict"))
    return digests


def networks_of(method: Method, options: Optimization) -> tuple[Method, ...]:
    """The methods whose networks a picture comes from, the last one last."""
    return ("fast", "optimize") if method == "optimize" and options.start == "fast" else (method,)


def facts(method: Method, styles: Sequence[Style], choices: Mapping[str, Any]) -> dict[str, Any]:
    """What decides on a picture besides its content and the weights."""
    return {"method": method, "styles": [style.record for style in styles], **choices}
