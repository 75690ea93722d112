"""A saved generator as a function from image to image."""

from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan.artifacts import GeneratorConfig
from cyclegan.artifacts.hub import copy_generator, locate, upload
from cyclegan.errors import BadInput
from cyclegan.images import MAX_PIXELS, from_tensor, read_image, resize, to_tensor, write_image
from cyclegan.networks.inference import translate
from cyclegan.translation.backends import Backend, BackendName, Precision, TorchBackend, open_backend

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray, Tensor)


class Translator:
    """Translates images of a generator's source domain into its target domain.

    Args:
        network: maps (N, C, H, W) in [-1, 1] to the same shape, H and W multiples of
            ``config.multiple_of``: a torch module, computed at fp32, or a ``Backend``.
        config: what the generator says of itself.
        device: where a module is to compute; default the fastest there is.
    """

    def __init__(
        self, network: nn.Module | Backend, config: GeneratorConfig, device: torch.device | str | None = None
    ) -> None:
        is_module = isinstance(network, nn.Module)
        self.backend = TorchBackend(network, config, device, "fp32") if is_module else network
        self.device = self.backend.device
        self.config = config
        self.folder: Path | None = None

    @classmethod
    def from_pretrained(
        cls,
        generator: str | Path,
        device: torch.device | str | None = None,
        backend: BackendName = "torch",
        precision: Precision = "auto",
    ) -> "Translator":
        """Load a saved generator.

        Args:
            generator: its folder (model.safetensors and config.json), an id on the Hugging Face Hub
                (``owner/name``), or an exported .onnx file.
            device: where torch is to compute; default the fastest there is.
            backend: what computes (``open_backend``).
            precision: ``auto`` is the fastest that the machine and the backend have; ``fp32`` is exact.

        Raises:
            BadInput: there is no whole generator, or the backend is not to be had.
        """
        path = locate(generator)
        opened = open_backend(path, backend, precision, device)
        translator = cls(opened, opened.config)
        translator.folder = path if path.is_dir() else None
        return translator

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the generator as a folder that ``from_pretrained`` and the Hub take.

        Raises:
            BadInput: it was not loaded from a folder or from the Hub.
        """
        copy_generator(self._own_folder(), Path(folder))

    def push_to_hub(self, repo_id: str, private: bool = False, token: str | None = None) -> str:
        """Upload the generator and its model card to the Hugging Face Hub; returns its address there.

        Args:
            repo_id: ``owner/name``; made when it is not there yet.
            private: whether a new one is to be seen by its owner only.
            token: of the account; default the one that ``hf auth login`` stored.

        Raises:
            BadInput: it was not loaded from a folder or from the Hub, or the Hub refuses.
        """
        return upload(self._own_folder(), repo_id, private, token)

    def _own_folder(self) -> Path:
        if self.folder is None:
            raise BadInput("only a generator that was loaded from a folder or from the Hub can be saved")
        return self.folder

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
        return translate(self.backend, images.to(self.device), self.config.multiple_of).to(images.device)

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
