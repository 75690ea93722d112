"""Every way from a photograph to a painter's hand, on the same pictures: what it costs and what it gives.

python benchmarks/methods.py --generators runs/photo2strokes/RUN/generators/G_AB --out methods/ --json

Each row is one `cyclegan` command in a process of its own: seconds of wall time, with imports and loading of
weights, and its largest resident memory. Distances are by VGG-19: content, the squared difference of relu4_2
over that of the photograph's own features; style, the squared difference of the Gram matrices of relu1_1 to
relu5_1 over the style's own, the mean over layers. 0 is the same; the photograph itself and its blur stand
beside. Networks that are not trained are there for what they cost.
"""

import shutil
import subprocess
import sys
import tempfile
import time
from json import dumps
from pathlib import Path

import cv2
import numpy as np
import torch
from entry import SMALLEST, at_least, run

from cyclegan.artifacts import (
    GeneratorConfig,
    NetworkConfig,
    network_arguments,
    read_config,
    save_generator,
)
from cyclegan.chance import rng
from cyclegan.datasets.cards import load_card
from cyclegan.datasets.making.originals import original_file
from cyclegan.datasets.making.strokes import strokes
from cyclegan.errors import Failed
from cyclegan.images import read_image, resize, to_tensor, write_image
from cyclegan.losses.style import gram
from cyclegan.networks import build, fitted
from cyclegan.networks.layers import initialize
from cyclegan.networks.vgg19 import pretrained_vgg19

CONTENT, STYLE = "relu4_2", ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
PHOTOGRAPHS, PAINTED = ("coffee", "chelsea"), "flower"
# A process counts the peak of the one that it was forked from as its own; so a small one has to be between.
WATCH = """import resource, subprocess, sys
status = subprocess.call([sys.executable, "-m", "cyclegan", *sys.argv[1:]], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)"""
UNTRAINED = {
    "resnet, 9 blocks": ("resnet", {}),
    "unet": ("unet", {}),
    "vit_unet": ("vit_unet", {}),
    "modnet": ("modnet", {}),
}


def pictures(folder: Path, size: int) -> Path:
    """Photographs into ``folder/photographs``, squares of ``size`` pixels, and the style beside them."""
    for original in load_card("photo2strokes").source.originals:
        name = Path(original.file).stem
        pixels = read_image(original_file(original)).pixels
        if name in PHOTOGRAPHS:
            side = min(pixels.shape[:2])
            left = (pixels.shape[1] - side) // 2
            square = np.ascontiguousarray(pixels[:side, left : left + side])
            write_image(folder / "photographs" / f"{name}.png", resize(square, size, size))
        if name == PAINTED:
            write_image(folder / "style.png", strokes(pixels, rng(0, "style", 0)))
    return folder / "style.png"


def untrained(folder: Path, name: str, arguments: dict, size: int) -> Path:
    """A generator of published size with first weights."""
    network = initialize(build("generator", name, fitted("generator", name, arguments, size)))
    config = GeneratorConfig(
        network=NetworkConfig(
            name=name, arguments=network_arguments(network, fitted("generator", name, arguments, size))
        ),
        channels=3,
        size=size,
        multiple_of=network.multiple_of,
        domain="none",
        direction="AtoB",
        source="photographs",
        target="nothing",
        card_sha256=None,
        licences={},
        seed=None,
        steps=0,
        images_seen=0,
    )
    save_generator(folder, network.state_dict(), config)
    return folder


def command(words: list[str]) -> tuple[float, float]:
    """Seconds and peak MiB of one command; what it says goes to standard error."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", WATCH, *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"cyclegan {' '.join(words)}: status {done.returncode}")
    return time.perf_counter() - began, int(done.stdout) / 1024


class Judge:
    """Distances to a style, which several pictures have in the mean, and to photographs."""

    def __init__(self, *styles: Path) -> None:
        self.network = pretrained_vgg19()
        found = [self._grams(self._features(style)) for style in styles]
        self.grams = {layer: torch.stack([grams[layer] for grams in found]).mean(dim=0) for layer in STYLE}

    @torch.inference_mode()
    def _features(self, path: Path) -> dict[str, torch.Tensor]:
        return self.network(to_tensor(read_image(path).pixels)[None], [CONTENT, *STYLE])

    def _grams(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {layer: gram(features[layer]) for layer in STYLE}

    def distances(self, found: Path, photograph: Path) -> tuple[float, float]:
        features, original = self._features(found), self._features(photograph)[CONTENT]
        content = (features[CONTENT] - original).square().mean() / original.square().mean()
        terms = [
            (found - self.grams[layer]).square().sum() / self.grams[layer].square().sum()
            for layer, found in self._grams(features).items()
        ]
        return float(content), float(sum(terms) / len(terms))


def copies(folder: Path, out: Path, change) -> None:
    for path in sorted((folder / "photographs").iterdir()):
        write_image(out / path.name, change(read_image(path).pixels))


def main(
    generators: tuple[Path, ...] = (), size: int = 256, out: Path | None = None, json: bool = False
) -> None:
    """Measure all methods on two photographs of ``size`` pixels.

    Args:
        generators: trained ones, a row each by the method and the domain of its training
        size: height and width of the photographs
        out: folder for the results and the style picture
        json: end with one line of JSON
    """
    at_least(SMALLEST, size=size)
    trained = {generator: read_config(generator) for generator in generators}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        style, photographs = pictures(folder, size), folder / "photographs"
        style_words = [str(photographs), str(style)]
        commands = {
            "optimize": ["stylize", *style_words, "{out}", "--method", "optimize"],
            "fast": ["stylize", *style_words, "{out}", "--method", "fast"],
        }
        for generator, config in trained.items():
            words = ["translate", str(generator), str(photographs), "{out}"]
            commands[f"{config.method}, {config.domain}"] = words
        for name, (network, arguments) in UNTRAINED.items():
            saved = untrained(folder / f"untrained {name}", network, arguments, size)
            commands[f"{name}, untrained"] = ["translate", str(saved), str(photographs), "{out}"]
        judge, rows = Judge(style), {}
        copies(folder, folder / "results" / "photograph", lambda pixels: pixels)
        copies(folder, folder / "results" / "blur", lambda pixels: cv2.GaussianBlur(pixels, (0, 0), 3))
        for name in ("photograph", "blur"):
            rows[name] = {"seconds": None, "mib": None, **found(judge, folder, name)}
        for name, words in commands.items():
            target = folder / "results" / name
            seconds, mib = command([word.format(out=target) for word in words])
            judged = {} if "untrained" in name else found(judge, folder, name)
            rows[name] = {"seconds": round(seconds, 1), "mib": round(mib), **judged}
        table(rows)
        if out is not None:
            shutil.copytree(folder / "results", out, dirs_exist_ok=True)
            shutil.copy(style, out / "style.png")
    if json:
        print(
            dumps(
                {
                    "size": size,
                    "photographs": len(PHOTOGRAPHS),
                    "threads": torch.get_num_threads(),
                    "rows": rows,
                }
            )
        )


def found(judge: Judge, folder: Path, name: str) -> dict[str, float]:
    pairs = [
        judge.distances(folder / "results" / name / path.name, path)
        for path in sorted((folder / "photographs").iterdir())
    ]
    content, style = np.mean(pairs, axis=0)
    return {"content": round(float(content), 3), "style": round(float(style), 3)}


def table(rows: dict[str, dict]) -> None:
    print(f"{'':<26}{'seconds':>9}{'MiB':>7}{'content':>9}{'style':>8}")
    for name, row in rows.items():
        values = [row.get(key) for key in ("seconds", "mib", "content", "style")]
        cells = ["" if value is None else f"{value:g}" for value in values]
        print(f"{name:<26}{cells[0]:>9}{cells[1]:>7}{cells[2]:>9}{cells[3]:>8}")


if __name__ == "__main__":
    run(main)
