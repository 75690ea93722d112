"""A saved generator as a function from image to image."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan.artifacts import GeneratorConfig, load_generator
from cyclegan.images import MAX_PIXELS, from_tensor, read_image, resize, to_tensor, write_image
from cyclegan.networks.inference import inference_device, translate

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray, Tensor)


class Translator:
    """Translates images of a generator's source domain into its target domain.

    Args:
        network: maps (N, C, H, W) in [-1, 1] to the same shape, H and W multiples of
            ``config.multiple_of``.
        config: what the generator says of itself.
        device: where to compute; default the fastest there is.
    """

    def __init__(
        self, network: nn.Module, config: GeneratorConfig, device: torch.device | str | None = None
    ) -> None:
        self.device = inference_device() if device is None else torch.device(device)
        self.network = network.to(self.device).eval()
        self.config = config

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: torch.device | str | None = None) -> "Translator":
        """Load a generator's folder (model.safetensors and config.json).

        Raises:
            BadInput: the folder does not hold a whole generator.
        """
        return cls(*load_generator(Path(folder)), device)

    def __call__(self, image: AnyImage, size: int | None = None) -> AnyImage:
        """Translate one image, or a batch of tensors.

        Args:
            image: a PIL image; a numpy array (H, W, C), uint8 or uint16; or a tensor (N, C, H, W) in
                [-1, 1]. C is 1 or 3 as the generator's.
            size: translate at ``size`` x ``size`` and resize back; default at the image's own size.

        Returns:
            The same kind, size and depth.
        """
        if isinstance(image, Tensor):
            return self._tensor(image)
        if isinstance(image, np.ndarray):
            return self._pixels(image, size)
        mode = "L" if self.config.channels == 1 else "RGB"
        pixels = np.asarray(image.convert(mode))
        pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
        result = self._pixels(pixels, size)
        return Image.fromarray(result[:, :, 0] if result.shape[2] == 1 else result)

    def _tensor(self, images: Tensor) -> Tensor:
        return translate(self.network, images.to(self.device), self.config.multiple_of).to(images.device)

    def _pixels(self, pixels: np.ndarray, size: int | None) -> np.ndarray:
        height, width = pixels.shape[:2]
        if size is not None:
            pixels = resize(pixels, size, size)
        result = from_tensor(self._tensor(to_tensor(pixels)[None])[0], pixels.dtype)
        return resize(result, height, width)

    def file(self, source: Path, target: Path, size: int | None = None, quality: int = 95) -> None:
        """Translate one file; depth and alpha are kept where the target's format has them.

        Raises:
            BadImage: the source cannot be read.
            OSError: the target cannot be written.
        """
        picture = read_image(source, self.config.channels, self.config.background, MAX_PIXELS)
        write_image(target, self._pixels(picture.pixels, size), picture.alpha, quality)
