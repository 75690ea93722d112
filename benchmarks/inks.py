"""Whether a generator that takes references prints in their ink, where the true prints are known.

python benchmarks/inks.py runs/photo2prints/RUN/generators/G_AB --json

The held-out photographs of photo2prints are printed with each held-out print as the reference, and compared
with the true prints in all inks: mean difference in grey levels, 0 to 255. Beside it: the photographs as they
are.
"""

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from entry import run

from cyclegan import Translator
from cyclegan.artifacts import load_generator
from cyclegan.datasets.making.prints import INKS, printed
from cyclegan.datasets.prepare import prepare
from cyclegan.errors import BadInput
from cyclegan.images import read_image

Errors = dict[str, float]  # by ink
Prints = dict[str, list[np.ndarray]]  # by ink, of each photograph


def errors(made: list[np.ndarray], truths: Prints) -> Errors:
    """How far prints are from the true ones of each ink."""
    return {
        ink: float(np.mean([np.abs(m.astype(float) - t).mean() for m, t in zip(made, true, strict=True)]))
        for ink, true in truths.items()
    }


def nearest(found: Errors) -> str:
    return min(found, key=found.__getitem__)


def judge(generator: Path) -> dict[str, Any]:
    """Errors by the ink of the reference, and with how many references of how many their ink was nearest."""
    domain = prepare("photo2prints")
    names = sorted(path.name for path in (domain / "testA").iterdir())
    photographs, prints = (
        [read_image(domain / side / name).pixels for name in names] for side in ("testA", "testB")
    )
    chance = np.random.default_rng(0)
    truths = {ink: [printed(pixels, chance, ink) for pixels in photographs] for ink in INKS}
    by_ink: dict[str, list[Errors]] = {ink: [] for ink in INKS}
    for i, name in enumerate(names):
        reference = domain / "testB" / name
        translator = Translator.from_pretrained(generator, precision="fp32", reference=reference)
        ink = nearest(errors([prints[i]], {ink: [true[i]] for ink, true in truths.items()}))
        by_ink[ink].append(errors([translator(pixels) for pixels in photographs], truths))
    return {
        "errors": {
            ink: {to: float(np.mean([each[to] for each in found])) for to in INKS}
            for ink, found in by_ink.items()
        },
        "photographs": errors(photographs, truths),
        "followed": sum(nearest(each) == ink for ink, found in by_ink.items() for each in found),
        "references": len(names),
    }


def main(generator: Annotated[Path, tyro.conf.Positional], json: bool = False) -> None:
    """Print held-out photographs with each held-out print as the reference.

    Args:
        generator: the folder of a G_AB of photo2prints
        json: end with one line of JSON
    """
    if not getattr(load_generator(generator)[0], "takes_reference", False):
        raise BadInput(f"{generator}: takes no references, as one of photo2prints does by its recipe")
    found = judge(generator)
    print(f"{'reference':<16}", *(f"{ink:>12}" for ink in INKS))
    for name, row in {**found["errors"], "photographs": found["photographs"]}.items():
        print(f"{name:<16}", *(f"{row[ink]:>12.1f}" for ink in INKS))
    print(f"nearest to the reference's own ink: with {found['followed']} of {found['references']} references")
    if json:
        print(dumps(found))


if __name__ == "__main__":
    run(main)
