"""The networks that images are judged by, each with its own way of bringing them to size."""

import contextlib
import functools
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args
from urllib.error import URLError

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cyclegan.errors import BadInput, optional
from cyclegan.images import from_tensor
from cyclegan.networks.deployed import cpu_has_bf16
from cyclegan.networks.vgg19 import WIDTHS, pretrained_vgg19

Network = Literal["vgg19", "inception", "lpips"]
NETWORKS: tuple[str, ...] = get_args(Network)

LAYERS = ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")
# Edges, colours, textures: the style. Deeper blocks say what is drawn, and that a translator is to keep.
STYLE_LAYERS = LAYERS[:3]
VGG19_PIXELS = 128  # larger images are judged at this size: four times the pixels cost four times the time
GRID = 4  # positions a side of a layout

INCEPTION_PIXELS = 299
INCEPTION_URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
ALEXNET_URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"


class VGG19Judge:
    """VGG-19's activations; at bf16 on CPUs that have it, which moves KID by up to 0.5 % of itself."""

    def __init__(self, device: torch.device) -> None:
        self.network = pretrained_vgg19().to(device, memory_format=torch.channels_last)
        self.device = device
        self.bf16 = device.type == "cpu" and cpu_has_bf16()

    @torch.inference_mode()
    def layers(self, images: Tensor, wanted: Sequence[str] = LAYERS) -> dict[str, Tensor]:
        """Activations of (N, 1 or 3, H, W) in [-1, 1], as float32, at the images' size or 128 pixels."""
        images = shrink(images.float().cpu(), VGG19_PIXELS).expand(-1, 3, -1, -1)
        images = images.to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            found = self.network(images, wanted)
        return {name: activation.float() for name, activation in found.items()}


@functools.cache
def vgg19_judge(device: torch.device) -> VGG19Judge:
    """One for all judgements on a device: it takes 80 MB and does not change."""
    return VGG19Judge(device)


def shrink(images: Tensor, pixels: int) -> Tensor:
    """(N, C, H, W) with its longer side brought to ``pixels`` if it is longer, antialiased (bicubic)."""
    height, width = images.shape[-2:]
    if max(height, width) <= pixels:
        return images
    scale = pixels / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    return F.interpolate(images, size, mode="bicubic", antialias=True, align_corners=False)


def pooled_features(activations: Mapping[str, Tensor]) -> Tensor:
    """(N, 448): the style layers' activations averaged over positions, side by side."""
    return torch.cat([activations[name].mean(dim=(2, 3)) for name in STYLE_LAYERS], dim=1).cpu()


def layer_scales(target: Tensor) -> Tensor:
    """(448,): the root mean square of each layer in the target's (N, 448) features.

    VGG-19 is not normalized: raw, its layers differ by orders of magnitude, and KID's cubic kernel would
    see one of them alone. In these units every layer counts.
    """
    layers = target.split([WIDTHS[int(name[4]) - 1] for name in STYLE_LAYERS], dim=1)
    return torch.cat([layer.square().mean().sqrt().expand(layer.shape[1]) for layer in layers])


def layouts(activations: Mapping[str, Tensor]) -> Tensor:
    """(N, 4096) of unit length: relu3_4 averaged over a grid of 4 x 4, what is where in the picture."""
    grid = F.adaptive_avg_pool2d(activations[STYLE_LAYERS[-1]], GRID).flatten(1).cpu()
    return F.normalize(grid, dim=1)


class InceptionJudge:
    """The Inception network that FID and KID are published with, with torch-fidelity's weights.

    Images come to 299 pixels the way of clean-fid (Parmar et al. 2022): each channel resized by Pillow
    in floating point, bicubic and antialiased. They are then rounded to 8 bits, as the network wants.

    Raises:
        BadInput: torch-fidelity is not installed, or its weights can be had neither here nor there.
    """

    def __init__(self, device: torch.device) -> None:
        package = optional("torch_fidelity.feature_extractor_inceptionv3", "eval", "the network 'inception'")
        weights = fetched_weights(INCEPTION_URL, "inception's weights", "leave inception out of --networks")
        make = package.FeatureExtractorInceptionV3
        self.network = make("inception", ["2048"], feature_extractor_weights_path=str(weights)).to(device)
        self.device = device

    @torch.inference_mode()
    def features(self, images: Tensor) -> Tensor:
        """(N, 1 or 3, H, W) in [-1, 1] to (N, 2048)."""
        pixels = np.stack([clean_resize(from_tensor(image), INCEPTION_PIXELS) for image in images])
        batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        return self.network(batch.to(self.device))[0].cpu()


def clean_resize(pixels: np.ndarray, side: int) -> np.ndarray:
    """(H, W, C) uint8 to (side, side, C) uint8, channel by channel in floating point, antialiased."""
    channels = [
        Image.fromarray(channel.astype(np.float32)).resize((side, side), Image.Resampling.BICUBIC)
        for channel in pixels.transpose(2, 0, 1)
    ]
    return np.rint(np.stack([np.asarray(c) for c in channels], axis=2).clip(0, 255)).astype(np.uint8)


class LPIPSJudge:
    """LPIPS 0.1 on AlexNet (Zhang et al. 2018), by torchmetrics.

    Raises:
        BadInput: torchmetrics is not installed, or AlexNet's weights can be had neither here nor there.
    """

    def __init__(self, device: torch.device) -> None:
        package = optional("torchmetrics.image.lpip", "eval", "the network 'lpips'")
        fetched_weights(ALEXNET_URL, "AlexNet's weights", "leave lpips out of --networks")
        self.network = package.LearnedPerceptualImagePatchSimilarity(net_type="alex").net.to(device)
        self.device = device

    @torch.inference_mode()
    def distance(self, images: Tensor, truth: Tensor) -> Tensor:
        """(N,) distances of (N, 1 or 3, H, W) in [-1, 1], pair by pair."""
        x, y = (t.clamp(-1, 1).expand(-1, 3, -1, -1).to(self.device) for t in (images, truth))
        return self.network(x, y).reshape(-1).cpu()


def cached_weights(url: str) -> Path:
    """Where torch keeps what it fetched from ``url``."""
    return Path(torch.hub.get_dir(), "checkpoints", url.rsplit("/", 1)[1])


def fetched_weights(url: str, what: str, instead: str) -> Path:
    """A file of tensors, fetched once and kept where torch keeps its own; no code in it is ever run.

    Raises:
        BadInput: it is not here and cannot be fetched, or it holds something else.
    """
    path = cached_weights(url)
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        digest = path.stem.rsplit("-", 1)[1]
        try:
            with _timeout(30):
                torch.hub.download_url_to_file(url, str(path), digest, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            reason = getattr(error, "reason", None) or error
            raise BadInput(
                f"{what} cannot be fetched from {url} ({reason}); put that file at {path}, or {instead}"
            ) from error
    try:
        # Those who load it after us unpickle it as it is; after this it is known to hold tensors only.
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds on damaged files
        raise BadInput(f"{path}: does not hold {what}; remove it, and it is fetched again") from error
    return path


@contextlib.contextmanager
def _timeout(seconds: float):
    """torch asks without a time limit; a silent firewall would hold us for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
