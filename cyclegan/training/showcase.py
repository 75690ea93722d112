"""The last thing that a run makes: held-out images, translated by the generators as they were saved."""

from collections.abc import Callable
from pathlib import Path

from cyclegan.datasets.domain import Domain
from cyclegan.training.run import GENERATORS, Run
from cyclegan.translation import Translator
from cyclegan.translation.folder import translate_files


def translate_held_out(run: Run, domain: Domain, count: int, say: Callable[[str], None]) -> list[Path]:
    """Translate up to ``count`` held-out images of each side into ``translated/AtoB`` and ``BtoA``.

    They go the way that a user's pictures go: read from their files, by the generator's folder.
    """
    written = []
    for name, direction in GENERATORS.items():
        sources = (domain.test_a if direction == "AtoB" else domain.test_b)[:count]
        if not sources:
            continue
        folder = run.folder / "translated" / direction
        pairs = [(source, folder / source.name) for source in sources]
        for item in translate_files(Translator.from_pretrained(run.generator(name)), pairs):
            if item.error is not None:
                say(item.error)
        written.append(folder)
    return written
