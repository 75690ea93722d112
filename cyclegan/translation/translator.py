"""A saved generator as a function from image to image."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from cyclegan.artifacts import CONFIG, GeneratorConfig
from cyclegan.artifacts.hub import copy_generator, locate, upload
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.files import replace_file
from cyclegan.images import (
    MAX_PIXELS,
    TIFF_SUFFIXES,
    BadImage,
    Picture,
    encode_image,
    from_pil,
    from_tensor,
    read_image,
    resize,
    to_pil,
    to_tensor,
)
from cyclegan.metadata import Metadata
from cyclegan.networks import build
from cyclegan.networks.inference import translate
from cyclegan.translation.backends import (
    DTYPES,
    Backend,
    BackendName,
    Precision,
    Takes,
    TorchBackend,
    open_backend,
)
from cyclegan.translation.folder import FolderTranslation
from cyclegan.translation.options import NEEDS_TORCH, FolderOptions, Tiling
from cyclegan.translation.plan import plan
from cyclegan.translation.provenance import Label
from cyclegan.translation.reference import reference_backend
from cyclegan.translation.shares import Share
from cyclegan.translation.tiling.source import ArraySource, assembled
from cyclegan.translation.tiling.strategy import Tiler
from cyclegan.translation.tiling.tiff import TiffSource, write_tiff

if TYPE_CHECKING:
    from cyclegan.translation.signing import Signer

AnyImage = TypeVar("AnyImage", Image.Image, np.ndarray, Tensor)
DEFAULT_TILING = Tiling()


class Translator:
    """Translates images of a generator's source domain into its target domain.

    A file goes through ``read``, ``prepare``, ``network_on``, ``finish`` and ``encode``; only ``network_on``
    uses the device, the others may run in threads of their own.

    Args:
        network: maps (N, C, H, W) in [-1, 1] to the same shape, H and W multiples of
            ``config.multiple_of``: a torch module, computed at fp32, or a ``Backend``.
        config: what the generator says of itself, or what images a network takes that is none.
        device: where a module is to compute; default the fastest there is.
        label: what each file says of its origin; default what a generator's ``config`` tells.
        tiling: how large images are cut.
        facts: what else decides on a file's bytes, such as a picture whose style is taken over.
    """

    def __init__(
        self,
        network: nn.Module | Backend,
        config: Takes,
        device: torch.device | str | None = None,
        label: Label | None = None,
        tiling: Tiling = DEFAULT_TILING,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        is_module = isinstance(network, nn.Module)
        self.backend = TorchBackend(network, config, device, "fp32") if is_module else network
        self.device = self.backend.device
        self.config = config
        self.label = label or Label.of(config, self.backend.weights_sha256)
        self.saved_in: Path | None = None
        self.facts = dict(facts or {})
        self.tiling = tiling
        self.tiler = _tiler(self.backend, tiling, self._in_torch)

    @classmethod
    def from_pretrained(
        cls,
        generator: str | Path,
        device: torch.device | str | None = None,
        backend: BackendName = "torch",
        precision: Precision = "auto",
        tiling: Tiling = DEFAULT_TILING,
        reference: str | Path | None = None,
    ) -> "Translator":
        """Load a saved generator.

        Args:
            generator: its folder (model.safetensors and config.json), an id on the Hugging Face Hub
                (``owner/name``), or an exported .onnx file.
            device: where torch is to compute; default the fastest there is.
            backend: what computes (``open_backend``).
            precision: ``auto`` is the fastest that the machine and the backend have; ``fp32`` is exact.
            tiling: how images are cut that memory cannot hold.
            reference: the picture whose style the translations are to have, for a generator that takes one;
                default the mean style of its target. Computed by torch.

        Raises:
            BadInput: there is no whole generator, the backend is not to be had, or the reference is none.
        """
        path = locate(generator)
        if tiling.method == "exact" and precision == "auto":
            precision = "fp32"
        if reference is not None:
            reference = Path(reference)
            opened = reference_backend(path, backend, precision, device, reference)
        else:
            opened = open_backend(path, backend, precision, device)
        digest = sha256_of(path / CONFIG) if path.is_dir() else None
        label = Label.of(opened.config, opened.weights_sha256, digest)
        facts = {} if reference is None else {"reference": sha256_of(reference)}
        translator = cls(opened, opened.config, label=label, tiling=tiling, facts=facts)
        translator.saved_in = path if path.is_dir() else None
        return translator

    def settings(self, options: FolderOptions) -> dict[str, Any]:
        """What besides the generator and the input decides on a file's bytes; manifest.jsonl keeps it."""
        in_torch = ", tiles in torch" if self.backend.name != "torch" and self.has_tiles else ""
        return {
            "size": options.size,
            "backend": self.backend.name,
            "precision": self.backend.precision,
            "tiling": "whole" if options.size else f"{self.tiling}{in_torch}",
            "format": options.format,
            "quality": options.quality,
            **self.facts,
        }

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
        if self.saved_in is None:
            raise BadInput("only a generator that was loaded from a folder or from the Hub can be saved")
        return self.saved_in

    def __call__(self, image: AnyImage, size: int | None = None) -> AnyImage:
        """Translate one image, or a batch of tensors.

        Args:
            image: a PIL image, whose alpha is kept; a numpy array (H, W, C), uint8, uint16 or floats in
                [0, 1]; or a float tensor (N, C, H, W) in [-1, 1]. C of arrays and tensors is the
                generator's, 1 or 3; PIL images are converted to it.
            size: translate at ``size`` x ``size`` and resize back; default at the image's own size.

        Returns:
            The same kind, size and depth, on the same device.

        Raises:
            BadInput: other shapes, types or ranges.
        """
        if isinstance(image, Tensor):
            return self._tensor(image, size)
        if isinstance(image, np.ndarray):
            self._check_array(image)
            kept = image.astype(np.float32) if image.dtype.kind == "f" else image
            return self._picture(Picture(kept), size).astype(image.dtype, copy=False)
        picture = from_pil(image, self.config.channels, self.config.background)
        if picture.pixels.dtype == np.uint16 and self.config.channels == 3:
            raise BadInput("PIL has no 16-bit colour images for the result; give the pixels as a numpy array")
        return to_pil(self._picture(picture, size), picture.alpha)

    def folder(
        self, source: str | Path, target: str | Path, share: Share | None = None, **options: Any
    ) -> FolderTranslation:
        """Translate a folder, a glob, a list of paths or a file; iterate over it to have it done.

        Args:
            source: as ``cyclegan translate`` takes it.
            target: the folder that mirrors it; what it holds already is recognised.
            share: this process's part where several divide the work; ``Share.of_environment()`` asks
                torchrun and accelerate. Default: all of it.
            options: those of ``FolderOptions``.

        Raises:
            BadInput: nothing to translate, or what lies at the outputs' places is not this translation.
        """
        chosen = FolderOptions(**options)
        planned = plan(Path(source), Path(target), chosen.format)
        return FolderTranslation(self, planned, chosen, share or Share())

    def file(self, source: Path, target: Path, signer: "Signer | None" = None, **options: Any) -> None:
        """Translate one file; depth, alpha, colour profile and EXIF are kept where the target has them.

        Args:
            signer: sign the label, too.
            options: those of ``FolderOptions`` that concern one file: size, quality, label.

        Raises:
            BadImage: the source cannot be read, or the target not signed.
            OSError: the target cannot be written.
        """
        chosen = FolderOptions(signer=signer, **options)
        picture = self.read(source)
        pixels = self._picture(picture, chosen.size)
        replace_file(target, self.encode(source, target, sha256_of(source), pixels, picture, chosen))

    def read(self, source: Path) -> Picture:
        """Decode one file with the generator's channels."""
        return read_image(source, self.config.channels, self.config.background, MAX_PIXELS)

    def prepare(self, picture: Picture, size: int | None = None) -> Tensor:
        """A picture as the network takes it: (C, H, W) in [-1, 1], at ``size`` if that is given."""
        pixels = picture.pixels
        return to_tensor(pixels if size is None else resize(pixels, size, size))

    def network_on(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [-1, 1] translated, at its size and on its device."""
        if self.config.multiple_of == 1:  # of any size, below the 16 pixels that others are padded to as well
            with torch.inference_mode():
                return self.backend(images.to(self.device)).to(images.device)
        return translate(self.backend, images.to(self.device), self.config.multiple_of).to(images.device)

    def finish(self, result: Tensor, picture: Picture) -> np.ndarray:
        """What the network made of a picture, (C, h, w), as pixels of the picture's size and depth."""
        height, width = picture.pixels.shape[:2]
        return resize(from_tensor(result, picture.pixels.dtype), height, width)

    def encode(
        self,
        source: Path,
        target: Path,
        source_sha256: str,
        pixels: np.ndarray,
        picture: Picture,
        options: FolderOptions,
    ) -> bytes:
        """The bytes of the output file for a finished picture: labelled, and signed, as ``options`` say.

        Raises:
            BadImage: the file cannot be signed.
        """
        facts = self.settings(options)
        metadata = replace(picture.metadata, xmp=None)
        if options.label:
            metadata = self.label.stamp(metadata, source_sha256, facts)
        data = encode_image(target.suffix, pixels, picture.alpha, options.quality, metadata)
        if options.signer is None:
            return data
        return options.signer.sign(data, target, source, self.label.facts(source_sha256, facts))

    def in_tiles(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) translated piece by piece, of the same dtype.

        Raises:
            BadInput: the network is in an .onnx file, which takes images whole.
        """
        if not self.has_tiles:
            raise BadInput(f"an image of {pixels.shape[1]} x {pixels.shape[0]} pixels {NEEDS_TORCH}")
        return assembled(self.tiler.bands(ArraySource(pixels)), pixels)

    def slide(
        self,
        source: Path,
        target: Path,
        source_sha256: str,
        options: FolderOptions,
        before: Callable[[Path], None] | None = None,
    ) -> None:
        """Translate a TIFF that is never in memory as a whole; ``before`` as in ``replace_file``.

        Raises:
            BadImage: not a TIFF that can be read by regions, or not to be written as one.
            OSError: the target cannot be written.
        """
        if target.suffix.lower() not in TIFF_SUFFIXES or not self.has_tiles or options.signer is not None:
            raise BadImage(
                f"{source}: is larger than memory should hold; make it smaller before, or write it as TIFF, "
                "translated by torch and unsigned"
            )
        if self.tiler.whole_only:
            raise BadImage(
                f"{source}: is larger than memory should hold, and this generator attends to the whole image "
                "at once; make it smaller before, or take --tiling naive, with seams"
            )
        opened = TiffSource(source, self.config.channels)
        try:
            xmp = None
            if options.label:
                xmp = self.label.stamp(Metadata(), source_sha256, self.settings(options)).xmp
            write_tiff(target, self.tiler.bands(opened), opened, xmp, before)
        finally:
            opened.close()

    def _picture(self, picture: Picture, size: int | None) -> np.ndarray:
        if size is None and self.goes_in_tiles(*picture.pixels.shape[:2]):
            return self.in_tiles(picture.pixels)
        return self.finish(self.network_on(self.prepare(picture, size)[None])[0], picture)

    def goes_in_tiles(self, height: int, width: int) -> bool:
        """Whether an image of this size is to be cut."""
        return self.tiler is not None and self.tiler.applies(height, width)

    @property
    def makes_small(self) -> bool:
        """Whether images of any size go whole, for what takes them computes at a size of its own."""
        if self.tiler is None:
            return hasattr(self.backend, "computed_at")
        return self.tiler.whole_only and hasattr(self.tiler.network, "computed_at")

    @property
    def has_tiles(self) -> bool:
        """Whether there is a torch network to compute tiles, which an .onnx file is not."""
        return isinstance(self.backend, TorchBackend) or self.saved_in is not None

    def _in_torch(self) -> nn.Module:
        """The network in torch, for tiles, where another backend computes whole images."""
        if self.saved_in is None:  # an .onnx file has no tiles; any weights tell how much memory it takes
            return build("generator", self.config.network.name, self.config.network.arguments).eval()
        precision = self.backend.precision if self.backend.precision in DTYPES else "auto"
        return open_backend(self.saved_in, "torch", precision, self.device).network

    def _tensor(self, images: Tensor, size: int | None) -> Tensor:
        channels = self.config.channels
        fits = images.ndim == 4 and images.shape[1] == channels and images.numel() > 0
        if not (fits and images.is_floating_point()):
            raise BadInput(
                f"this generator takes float tensors (N, {channels}, H, W) in [-1, 1], "
                f"not {images.dtype} {tuple(images.shape)}"
            )
        if size is None:
            return self.network_on(images.float()).to(images.dtype)
        resized = self.network_on(_resized(images, size, size))
        return _resized(resized, *images.shape[-2:]).to(images)

    def _check_array(self, pixels: np.ndarray) -> None:
        channels = self.config.channels
        if pixels.ndim != 3 or pixels.shape[2] != channels or not pixels.size:
            raise BadInput(
                f"this generator takes arrays (H, W, {channels}), not {pixels.shape}; PIL images are "
                "converted by themselves"
            )
        if pixels.dtype.kind == "f":
            if not 0 <= pixels.min() <= pixels.max() <= 1:
                raise BadInput(
                    f"float arrays must be in [0, 1], not {pixels.min():.4g} to {pixels.max():.4g}"
                )
        elif pixels.dtype not in (np.uint8, np.uint16):
            raise BadInput(f"arrays must be uint8, uint16 or floats in [0, 1], not {pixels.dtype}")


def _tiler(backend: Backend, tiling: Tiling, load: Callable[[], nn.Module]) -> Tiler | None:
    """What cuts images; for other backends than torch, ``load`` gives the network that computes tiles.

    None where there is no network between input and output, and images are taken whole.
    """
    config = backend.config
    if isinstance(backend, TorchBackend):
        if tiling.method == "exact" and backend.precision != "fp32":
            raise BadInput(
                f"--tiling exact: computes at fp32, not at {backend.precision}; use --precision fp32"
            )
        return Tiler(backend.network, config.channels, config.multiple_of, tiling, backend.device)
    if tiling.method is not None or isinstance(tiling.tile, int):
        raise BadInput(f"--tile, --tiling: {backend.name} takes images whole; use --backend torch")
    if not isinstance(config, GeneratorConfig):
        return None
    with torch.device("meta"):  # weights are not needed, nor read, before an image is large
        layers = build("generator", config.network.name, config.network.arguments).eval()
    return Tiler(layers, config.channels, config.multiple_of, tiling, load=load)


def _resized(images: Tensor, height: int, width: int) -> Tensor:
    """As files are resized, so that a tensor and a file give the same."""
    arrays = images.detach().float().cpu().permute(0, 2, 3, 1).numpy()
    resized = np.stack([resize(np.ascontiguousarray(array), height, width) for array in arrays])
    return torch.from_numpy(resized).permute(0, 3, 1, 2).contiguous()
