"""The first thing that people see: the default recipe, trained and judged."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cyclegan.images import read_image


def cyclegan(*args, cwd, env):
    done = subprocess.run(
        [sys.executable, "-m", "cyclegan", *args, "--json"], cwd=cwd, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def pixels(folder: Path, count: int = 100) -> np.ndarray:
    """(N, H, W, 3) in [0, 1]."""
    return np.stack([read_image(path).pixels for path in sorted(folder.iterdir())[:count]]) / 255


def finest_detail(images: np.ndarray) -> float:
    """Share of the power, besides the mean, at alternating pixels: where a checkerboard shows."""
    power = np.abs(np.fft.fft2(images.mean(axis=3))) ** 2
    power[:, 0, 0] = 0
    half = images.shape[1] // 2
    alternating = power[:, half - 1 : half + 2].sum() + power[:, :, half - 1 : half + 2].sum()
    return float(alternating / power.sum())


@pytest.mark.slow
def test_the_default_recipe_brings_pictures_nearer_to_the_other_style(emoji, tmp_path):
    env = {**os.environ, "CYCLEGAN_DATASETS": str(emoji.parent)}
    # Of 800: all of them take too long for a test where there is no bf16.
    part = ("--steps", "200")
    trained = cyclegan("train", "noto2twemoji", "--tracker", "none", *part, cwd=tmp_path, env=env)
    report = cyclegan("evaluate", trained["run"], cwd=tmp_path, env=env)
    print(json.dumps({"minutes": trained["minutes"], **report["metrics"]}))
    kid, style = (report["metrics"][name] for name in ("kid_vgg19", "vgg19_style_distance_to_truth"))
    # Half is what the recipe is to reach; 0.29 to 0.37 were measured after 200 and 400 steps, at bf16 and fp32.
    assert kid["value"] < 0.5 * kid["inputs"]
    assert style["value"] < style["inputs"]

    fakes = pixels(tmp_path / trained["translated"][0])
    reals = pixels(emoji / "testB")
    assert finest_detail(fakes) < 2 * finest_detail(reals), "a checkerboard"
    # Colours: neither washed out nor all alike.
    spread = [images.mean(axis=(1, 2)).std(axis=0).mean() for images in (fakes, reals)]
    assert 0.6 < spread[0] / spread[1] < 1.6
