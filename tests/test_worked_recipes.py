"""The worked recipes of docs/gallery.md, each trained for a part of its length: none is a blur by then."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cyclegan import Translator
from cyclegan.images import read_image

ROOT = Path(__file__).resolve().parent.parent
SIGMAS = (0.5, 1, 2, 4)
pytestmark = pytest.mark.slow


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """Trains a recipe for so many steps, and gives its G_AB."""
    monkeypatch.setenv("CYCLEGAN_DATASETS", str(ROOT / "datasets"))

    def train(domain, steps, *more):
        settings = [*more, "--steps", str(steps), "--evaluation.every", "0", "--tracker", "none", "--json"]
        command = [sys.executable, "-m", "cyclegan", "train", domain, *settings]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return tmp_path / json.loads(done.stdout.splitlines()[-1])["run"] / "generators" / "G_AB"

    return train


def blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(pixels, (0, 0), sigma)


def test_strokes_are_painted_where_nothing_was_and_hair_is_gone(trained):
    """Contrasts as wide as strokes where the photographs are plain, and less fine detail where they are not."""
    translator = Translator.from_pretrained(trained("photo2strokes", 700), precision="fp32")
    rows = []
    for path in sorted((ROOT / "datasets" / "photo2strokes" / "testA").iterdir()):
        pixels = read_image(path).pixels
        images = pixels, translator(pixels)
        grey = [cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).astype(np.float64) for each in images]
        broad = [np.abs(blurred(each, 1) - blurred(each, 4)) for each in grey]
        fine = [np.abs(each - blurred(each, 1)) for each in grey]
        where = blurred(broad[0], 4)
        plain = where <= np.median(where)
        ratios = (
            (each[1][area].mean() / each[0][area].mean()) for each, area in ((broad, plain), (fine, ~plain))
        )
        rows.append(list(ratios))
    strokes, hair = np.mean(rows, axis=0)
    print(f"{strokes:.2f} {hair:.2f}")
    # Of true paintings 2.2 and 0.84; blurs have less than 1 of the first, however little they are. Here one run had
    # 1.6 and 0.76, and three of 500 steps 1.1 and 0.6: there it begins.
    assert strokes > 1.2 and hair < 0.9


def test_areas_become_flat_and_their_edges_sharp(trained):
    """By the share of the gradients' power in the strongest tenth of the pixels: a blur spreads it."""
    translator = Translator.from_pretrained(trained("photo2lowpoly", 350), precision="fp32")
    folder = ROOT / "datasets" / "photo2lowpoly"

    def share(pixels):
        grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float64)
        power = np.sort((np.diff(grey, axis=1)[:-1] ** 2 + np.diff(grey, axis=0)[:, :-1] ** 2).ravel())
        return power[-len(power) // 10 :].sum() / power.sum()

    rows = []
    for path in sorted((folder / "testA").iterdir()):
        pixels = read_image(path).pixels
        images = [translator(pixels), read_image(folder / "testB" / path.name).pixels]
        rows.append([share(each) for each in (*images, pixels, *(blurred(pixels, s) for s in SIGMAS))])
    made, truth, *others = np.mean(rows, axis=0)
    # After 300 steps 0.80, where photographs have 0.72, their blurs less, and triangles 0.90.
    assert made > max(others) + 0.2 * (truth - max(others))


def test_prints_are_in_the_ink_of_their_reference(trained):
    """Nearer to the true print in that ink than in another: a blur, or a generator deaf to it, is not."""
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "inks.py"),
        str(trained("photo2prints", 600)),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    found = json.loads(done.stdout.splitlines()[-1])
    # Of some runs as short as this two inks are nearly one; of a deaf generator's references a quarter would be
    # followed, and its prints no nearer to their own ink than to others.
    own = [to.pop(ink) for ink, to in found["errors"].items()]
    others = [error for to in found["errors"].values() for error in to.values()]
    assert np.mean(own) < 0.6 * np.mean(others)
    assert np.mean(own) < 0.6 * np.mean(list(found["photographs"].values()))
    assert found["followed"] > 0.5 * found["references"]


def test_one_contrast_becomes_the_other(trained):
    """Nearer to the truth inside the head than any blur, even one that a straight line fits to the very slice."""
    translator = Translator.from_pretrained(trained("t1tot2", 250), precision="fp32")
    folder = ROOT / "datasets" / "t1tot2"
    rows, values = [], set()
    for path in sorted((folder / "testA").iterdir()):
        pixels, truth = (read_image(each, channels=1).pixels for each in (path, folder / "testB" / path.name))
        inside = truth[:, :, 0] > 0
        true = truth[:, :, 0][inside].astype(np.float64)
        found = [translator(pixels)[:, :, 0][inside]]
        assert found[0].dtype == np.uint16
        values |= set(found[0].tolist())
        for sigma in (0, *SIGMAS):  # and as it is
            sharp = pixels[:, :, 0].astype(np.float64)
            smooth = (blurred(sharp, sigma) if sigma else sharp)[inside]
            slope, offset = np.polyfit(smooth, true, 1)
            found.append(slope * smooth + offset)
        rows.append([np.abs(each - true).mean() for each in found])
    made, *blurs = np.mean(rows, axis=0)
    assert made < 0.97 * min(blurs)  # 0.91 of it was measured
    assert len(values) > 10_000  # 8 bits would leave 256
