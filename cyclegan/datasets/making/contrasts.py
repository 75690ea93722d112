"""Two contrasts of one head: slices of a T1-weighted template, and of a T2-weighted one that is computed.

B follows from tissue maps by the equation of a spin echo, so that for each slice of A the true B is known.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cyclegan import chance
from cyclegan.datasets.cards import SPLITS, MadeSource
from cyclegan.datasets.making.originals import original_file
from cyclegan.errors import optional
from cyclegan.images import write_image

SIZE = 128  # pixels of a slice
SCALE = 0.66  # pixels to a millimetre
SLICES = range(24, 150)  # of the template, in millimetres from its lowest one
GROUPS = ("trainA", "trainB", "trainA", "trainB", "test")  # by turns, so many slices each
GROUP, GAP = 5, 2  # slices taken, and left out after them: neighbours look alike
VIEWS = 3  # of each training slice, turned, scaled and shifted by chance
PEAK = 60_000  # of 65535: pure liquid on B, the brightest of A

# T1 and T2 in milliseconds and proton density at 1.5 T, as BrainWeb simulates them (Kwan et al. 1999).
TISSUES = {"csf": (2569, 329, 1.0), "grey": (833, 83, 0.86), "white": (500, 70, 0.77)}
TR, TE = 3300, 120  # milliseconds: BrainWeb's T2-weighted sequence


def t2_signal(tissue: str) -> float:
    """The spin echo's signal, PD (1 - exp(-TR/T1)) exp(-TE/T2), over that of liquid."""

    def signal(t1: float, t2: float, density: float) -> float:
        return density * (1 - np.exp(-TR / t1)) * np.exp(-TE / t2)

    return float(signal(*TISSUES[tissue]) / signal(*TISSUES["csf"]))


def make_contrasts(source: MadeSource, target: Path) -> None:
    """Axial slices as 16-bit grey PNG: A and B from slices apart in training, the same ones in the test.

    The card's originals are the T1-weighted template, the map of grey matter and that of white matter.
    """
    for split in SPLITS:
        (target / split).mkdir()
    t1, grey, white = (_volume(original_file(original)) for original in source.originals)
    t1, t2 = t1 / t1.max(), computed_t2(t1, grey, white)
    for order, z in enumerate(SLICES):
        group, place = divmod(order, GROUP + GAP)
        if place >= GROUP:
            continue
        split = GROUPS[group % len(GROUPS)]
        planes = {"A": t1[:, :, z], "B": t2[:, :, z]}
        if split == "test":
            for side, plane in planes.items():
                _save(_view(plane, 0, 1, 0, 0), target / f"test{side}" / f"z{z:03d}.png")
            continue
        for view in range(VIEWS):
            rng = chance.rng(source.seed, f"view {view}", z)
            turn, scale = rng.uniform(-15, 15), rng.uniform(0.9, 1.1)
            plane = _view(planes[split[-1]], turn, scale, *rng.uniform(-6, 6, 2))
            _save(plane, target / split / f"z{z:03d}-{view}.png")


def computed_t2(t1: np.ndarray, grey: np.ndarray, white: np.ndarray) -> np.ndarray:
    """T2-weighted signal in [0, 1] of tissue maps in [0, 1]; what is neither inside the head is liquid."""
    inside = (t1 > 0).astype(np.float32)
    csf = inside * np.clip(1 - grey - white, 0, 1)
    return csf + t2_signal("grey") * grey * inside + t2_signal("white") * white * inside


def _volume(path: Path) -> np.ndarray:
    """A NIfTI volume as float32 in [0, 1], (right, forward, up) by millimetres."""
    nibabel: Any = optional("nibabel", "recipes", "reading a template")
    return np.asarray(nibabel.load(path).dataobj, np.float32) / 255


def _view(plane: np.ndarray, turn: float, scale: float, right: float, down: float) -> np.ndarray:
    """One axial slice, forward upwards, turned by degrees about its middle, moved by pixels."""
    upright = np.ascontiguousarray(plane.T[::-1])
    # What will not fit into the pixels of the result is smoothed away first.
    smooth = cv2.GaussianBlur(upright, (0, 0), 0.5 / SCALE)
    height, width = smooth.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), turn, SCALE * scale)
    matrix[:, 2] += np.array([SIZE - width, SIZE - height]) / 2 + (right, down)
    return cv2.warpAffine(smooth, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)


def _save(plane: np.ndarray, path: Path) -> None:
    write_image(path, np.rint(np.clip(plane, 0, 1) * PEAK).astype(np.uint16)[:, :, None])
