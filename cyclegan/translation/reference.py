"""A picture of the target domain whose style translations are to have."""

from pathlib import Path

import torch

from cyclegan.artifacts import WEIGHTS, load_generator
from cyclegan.datasets.fetch import sha256_of
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
    network, config = load_generator(generator)
    if not getattr(network, "takes_reference", False):
        raise BadInput(
            f"--reference: {generator} takes no picture beside its input; train one that does with "
            "--generator.name modnet --generator.style reference"
        )
    pixels = read_image(reference, config.channels, config.background).pixels
    if config.size is not None:
        # Whole, at the training size: the code is a mean over the picture. With presets that crop, training
        # saw broader strokes.
        pixels = resize(pixels, config.size, config.size)
    network.use_style_of(to_tensor(pixels)[None])
    return TorchBackend(network, config, device, precision, sha256_of(generator / WEIGHTS))
