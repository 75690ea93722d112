"""The last thing that a run makes: held-out images, translated by the generators as they were saved."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from cyclegan.artifacts import GeneratorConfig
from cyclegan.artifacts.model_card import add_examples
from cyclegan.datasets.domain import Domain
from cyclegan.images import read_image, resize, to_tensor
from cyclegan.reporting.grids import sample_grid
from cyclegan.training.run import Run
from cyclegan.translation import Translator
from cyclegan.translation.folder import translate_files

EXAMPLES = 4  # in a model card


def translate_held_out(
    run: Run, directions: Mapping[str, str], domain: Domain, count: int, say: Callable[[str], None]
) -> list[Path]:
    """Translate up to ``count`` held-out images by each generator into ``translated/<direction>``.

    They go the way that a user's pictures go: read from their files, by the generator's folder.
    """
    written = []
    for name, direction in directions.items():
        sources = (domain.test_a if direction == "AtoB" else domain.test_b)[:count]
        if not sources:
            continue
        folder = run.folder / "translated" / direction
        pairs = [(source, folder / source.name) for source in sources]
        translator = Translator.from_pretrained(run.generator(name))
        done = []
        for item in translate_files(translator, pairs):
            if item.error is not None:
                say(item.error)
            else:
                done.append((item.source, item.target))
        written.append(folder)
        if done:
            grid = _examples(done[:EXAMPLES], translator.config)
            add_examples(run.generator(name), translator.config, grid)
    return written


def _examples(pairs: Sequence[tuple[Path, Path]], config: GeneratorConfig) -> Image.Image:
    """Images and their translations side by side, for the model card."""
    size, columns = config.size, []
    for side, heading in enumerate((config.direction[0], config.direction[-1])):
        pictures = (read_image(pair[side], config.channels, config.background) for pair in pairs)
        tiles = [to_tensor(resize(picture.pixels, size, size)) for picture in pictures]
        columns.append((heading, torch.stack(tiles)))
    return sample_grid([columns])
