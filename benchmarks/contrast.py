"""How much of the numbers survives a translation from one contrast to another, where the truth is known.

python benchmarks/contrast.py runs/t1tot2/RUN/generators/G_AB --json

Of the held-out slices of t1tot2: each is translated as a 16-bit file, read back, and compared with the true
slice inside the head. Beside it: the untranslated slice, and the straight line that fits it best to the
truth. It asserts nothing, and what it finds says nothing of patients.
"""

import tempfile
from json import dumps
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro
from entry import run
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from cyclegan import Translator
from cyclegan.artifacts import read_config
from cyclegan.datasets.making.contrasts import PEAK
from cyclegan.datasets.prepare import prepare
from cyclegan.errors import BadInput, Failed
from cyclegan.images import read_image


def slices(folder: Path, names: list[str]) -> np.ndarray:
    """(N, H, W), as the files have them."""
    return np.stack([read_image(folder / name, channels=1).pixels[:, :, 0] for name in names])


def figures(found: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Inside the head, (N, H, W) against (N, H, W), in units of the file."""
    found = found.astype(np.float64)
    inside = truth > 0
    maps = [
        structural_similarity(a, b.astype(np.float64), data_range=PEAK, full=True)[1]
        for a, b in zip(found, truth, strict=True)
    ]
    error = found[inside] - truth[inside]
    return {
        "mae_percent": round(100 * float(np.abs(error).mean()) / PEAK, 2),
        "bias_percent": round(100 * float(error.mean()) / PEAK, 2),
        "ssim": round(float(np.stack(maps)[inside].mean()), 4),
        "rank_correlation": round(float(spearmanr(found[inside], truth[inside]).statistic), 4),
        "outside_percent": round(100 * float(found[~inside].mean()) / PEAK, 2),
        "values": len(np.unique(found)),
    }


def steps(found: np.ndarray, truth: np.ndarray, count: int = 8) -> list[dict[str, float]]:
    """Mean of what was found where the truth lies in each of ``count`` equally full ranges, in percent."""
    inside = truth > 0
    found, truth = found[inside].astype(np.float64), truth[inside].astype(np.float64)
    edges = np.quantile(truth, np.linspace(0, 1, count + 1))
    which = np.clip(np.searchsorted(edges, truth, side="right") - 1, 0, count - 1)
    means = [(truth[which == i].mean(), found[which == i].mean()) for i in range(count)]
    return [{"true": round(100 * t / PEAK, 1), "found": round(100 * f / PEAK, 1)} for t, f in means]


def main(generator: Annotated[Path, tyro.conf.Positional], json: bool = False) -> None:
    """Judge a generator of t1tot2, AtoB.

    Args:
        generator: the folder of a G_AB of t1tot2
        json: end with one line of JSON
    """
    if (channels := read_config(generator).channels) != 1:
        raise BadInput(f"{generator}: takes images of {channels} channels, and slices have 1")
    domain = prepare("t1tot2")
    names = sorted(path.name for path in (domain / "testA").iterdir())
    inputs, truth = slices(domain / "testA", names), slices(domain / "testB", names)
    translator = Translator.from_pretrained(generator, precision="fp32")
    with tempfile.TemporaryDirectory() as out:
        for result in translator.folder(domain / "testA", Path(out)):
            if result.error is not None:
                raise Failed(str(result.error))
        translated = slices(Path(out), names)
    if translated.dtype != np.uint16:
        raise Failed("the translations are not of 16 bits")
    inside = truth > 0
    slope, offset = np.polyfit(inputs[inside].astype(np.float64), truth[inside].astype(np.float64), 1)
    line = np.clip(slope * inputs + offset, 0, None) * (inputs > 0)
    rows = {"translated": translated, "input": inputs, "straight line": line}
    found = {name: figures(each, truth) for name, each in rows.items()}
    print(f"{len(names)} slices; percent of {PEAK}, the signal of liquid; inside the head")
    print(f"{'':<14}{'MAE':>7}{'bias':>8}{'SSIM':>8}{'rank':>8}{'outside':>9}{'values':>8}")
    for name, row in found.items():
        print(
            f"{name:<14}{row['mae_percent']:>7}{row['bias_percent']:>8}{row['ssim']:>8}"
            f"{row['rank_correlation']:>8}{row['outside_percent']:>9}{row['values']:>8}"
        )
    ranges = steps(translated, truth)
    print("true -> found, from dark to bright: " + ", ".join(f"{r['true']} -> {r['found']}" for r in ranges))
    if json:
        print(dumps({"slices": len(names), "figures": found, "steps": ranges}))


if __name__ == "__main__":
    run(main)
