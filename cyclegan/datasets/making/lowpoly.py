"""Low-poly pictures, as early games look: flat triangles between points that lie where the edges are."""

import cv2
import numpy as np

from cyclegan.errors import optional

AREA = 110  # pixels to a corner, on average; a triangle has half of that
FLOOR = 0.06  # share of the strongest edge that a plain area counts as, so that it gets corners too
FINER = 3  # the triangles are drawn so many times larger and averaged, for smooth edges


def lowpoly(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture as a Delaunay triangulation with one colour to a triangle.

    Corners are drawn without replacement, with a chance in proportion to the gradient of the blurred
    luminance, and lie along the border besides; a triangle has the mean colour of what it covers.

    Args:
        picture: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.
    """
    spatial = optional("scipy.spatial", "recipes", "low-poly pictures")
    height, width = picture.shape[:2]
    triangles = spatial.Delaunay(_corners(picture, rng))
    # Pixel centres on a grid FINER times as fine as the picture's.
    y, x = np.mgrid[0 : height * FINER, 0 : width * FINER]
    centres = np.stack([y.ravel() + 0.5, x.ravel() + 0.5], axis=1) / FINER - 0.5
    covering = triangles.find_simplex(np.clip(centres, 0, [height - 1, width - 1]))
    large = np.repeat(np.repeat(picture, FINER, axis=0), FINER, axis=1).reshape(-1, 3)
    count = np.bincount(covering, minlength=len(triangles.simplices))
    sums = [np.bincount(covering, large[:, c], len(count)) for c in range(3)]
    colours = np.stack(sums, axis=1) / np.maximum(count, 1)[:, None]
    drawn = colours[covering].reshape(height, FINER, width, FINER, 3).mean(axis=(1, 3))
    return np.rint(drawn).astype(np.uint8)


def _corners(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(N, 2) rows and columns of the triangles' corners."""
    height, width = picture.shape[:2]
    grey = cv2.GaussianBlur(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), (0, 0), 1.5).astype(np.float32)
    edges = np.hypot(cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1))
    weight = np.sqrt(edges / max(float(edges.max()), 1e-6)) + FLOOR
    chosen = rng.choice(
        height * width, height * width // AREA, replace=False, p=(weight / weight.sum()).ravel()
    )
    inner = np.stack(np.divmod(chosen, width), axis=1)
    spacing = 2 * round(AREA**0.5)
    rows, columns = (np.linspace(0, n - 1, max(2, n // spacing + 1)) for n in (height, width))
    border = [(r, c) for r in (0, height - 1) for c in columns] + [
        (r, c) for c in (0, width - 1) for r in rows
    ]
    return np.unique(np.concatenate([inner, np.array(border)]), axis=0)
