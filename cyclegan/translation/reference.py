"""A picture of the target domain whose style translations are to have."""

from pathlib import Path

import torch
from torch import Tensor

from cyclegan.artifacts import WEIGHTS, GeneratorConfig, load_generator
from cyclegan.datasets.fetch import sha256_of
from cyclegan.datasets.scale import picture_at
from cyclegan.errors import BadInput
from cyclegan.images import read_image, resize, to_tensor
from cyclegan.translation.backends import BackendName, Precision, TorchBackend


def reference_backend(
    generator: Path,
    backend: BackendName,
    precision: Precision,
    device: torch.device | str | None,
    reference: Path,
) -> TorchBackend:
    """A saved generator that gives everything the style of ``reference``.

    Raises:
        BadInput: the generator takes no reference, the picture cannot be read, or another backend is asked
            for: an exported file has the style that it was exported with.
    """
    if backend not in ("auto", "torch") or not generator.is_dir():
        raise BadInput("--reference: needs --backend torch and a generator's folder")
    if reference.is_dir():
        raise BadInput(f"--reference: {reference} is a folder; name one picture")
    network, config = load_generator(generator)
    if not getattr(network, "takes_reference", False):
        raise BadInput(
            f"--reference: {generator} takes no picture beside its input; train one that does with "
            "--generator.name modnet --generator.style reference"
        )
    network.use_style_of([_as_training_saw_it(reference, config)])
    return TorchBackend(network, config, device, precision, sha256_of(generator / WEIGHTS))


def _as_training_saw_it(reference: Path, config: GeneratorConfig) -> Tensor:
    """Where the generator does not tell its scale the picture is squeezed to its size."""
    if config.scale is not None:
        return picture_at(config.scale, reference, config.channels, config.background)
    pixels = read_image(reference, config.channels, config.background).pixels
    return to_tensor(pixels if config.size is None else resize(pixels, config.size, config.size))[None]
