"""A saved generator as a function from image to image."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan.artifacts import CONFIG, WEIGHTS, GeneratorConfig, load_generator
from cyclegan.images import MAX_PIXELS, encode_image, from_tensor, read_image, replace_file, resize, to_tensor
from cyclegan.networks.inference import inference_device, translate
from cyclegan.translation.provenance import Label

if TYPE_CHECKING:
    from cyclegan.translation.signing import Signer

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray, Tensor)


class Translator:
    """Translates images of a generator's source domain into its target domain.

    Args:
        network: maps (N, C, H, W) in [-1, 1] to the same shape, H and W multiples of
            ``config.multiple_of``.
        config: what the generator says of itself.
        device: where to compute; default the fastest there is.
        label: what each file says of its origin; default what ``config`` tells.
    """

    def __init__(
        self,
        network: nn.Module,
        config: GeneratorConfig,
        device: torch.device | str | None = None,
        label: Label | None = None,
    ) -> None:
        self.device = inference_device() if device is None else torch.device(device)
        self.network = network.to(self.device).eval()
        self.config = config
        self.label = label or Label.of(config, None)

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: torch.device | str | None = None) -> "Translator":
        """Load a generator's folder (model.safetensors and config.json).

        Raises:
            BadInput: the folder does not hold a whole generator.
        """
        folder = Path(folder)
        network, config = load_generator(folder)
        digests = (hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (WEIGHTS, CONFIG))
        return cls(network, config, device, Label.of(config, *digests))

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

    def file(
        self,
        source: Path,
        target: Path,
        size: int | None = None,
        quality: int = 95,
        label: bool = True,
        signer: "Signer | None" = None,
    ) -> None:
        """Translate one file; depth, alpha, colour profile and EXIF are kept where the target has them.

        Args:
            label: write what made the picture into it (``Label.stamp``).
            signer: sign that, too.

        Raises:
            BadImage: the source cannot be read, or the target not signed.
            OSError: the target cannot be written.
        """
        picture = read_image(source, self.config.channels, self.config.background, MAX_PIXELS)
        settings = {"size": size, "quality": quality}
        digest = hashlib.sha256(source.read_bytes()).hexdigest()
        metadata = replace(picture.metadata, xmp=None)
        if label:
            metadata = self.label.stamp(metadata, digest, settings)
        pixels = self._pixels(picture.pixels, size)
        data = encode_image(target.suffix, pixels, picture.alpha, quality, metadata)
        if signer is not None:
            data = signer.sign(data, target, source, self.label.facts(digest, settings))
        replace_file(target, data)
