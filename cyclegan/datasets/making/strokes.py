"""Painted pictures: curved brush strokes, large ones first (Hertzmann, SIGGRAPH 1998)."""

from collections.abc import Iterator

import cv2
import numpy as np

RADII = (8, 4, 2)  # pixels, of the brushes (§2.1)
THRESHOLD = 60.0  # mean error of a cell, in grey levels, from which it is painted over: T
SHORTEST, LONGEST = 4, 14  # control points of a stroke (§2.2)
CURVATURE = 0.5  # how fast a stroke turns: f_c
BLUR = 0.5  # of the reference, in brush radii: f_sigma
JITTER = np.array([0.02, 0.10, 0.10])  # of hue, saturation and value of a stroke's colour (§3.1)


def strokes(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A picture painted stroke by stroke, the finer brushes only where the coarser ones were wrong.

    Args:
        picture: (H, W, 3) uint8.

    Returns:
        (H, W, 3) uint8.
    """
    # Toned ground in place of the paper's white: gaps between strokes look like the canvas.
    canvas = np.full_like(picture, picture.reshape(-1, 3).mean(axis=0).astype(np.uint8))
    for layer, radius in enumerate(RADII):
        reference = cv2.GaussianBlur(picture, (0, 0), BLUR * radius)
        _paint_layer(canvas, reference, radius, rng, everywhere=layer == 0)
    return canvas


def _paint_layer(
    canvas: np.ndarray, reference: np.ndarray, radius: int, rng: np.random.Generator, everywhere: bool
) -> None:
    """§2.1, paintLayer: strokes begin where a cell of the grid differs most, in random order."""
    error = np.linalg.norm(canvas.astype(np.float32) - reference, axis=2)
    grey = cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY).astype(np.float32)
    gradient = np.stack([cv2.Sobel(grey, cv2.CV_32F, 1, 0), cv2.Sobel(grey, cv2.CV_32F, 0, 1)], axis=2)
    height, width = error.shape
    starts = []
    for top in range(0, height, radius):
        for left in range(0, width, radius):
            cell = error[top : top + radius, left : left + radius]
            if everywhere or cell.mean() > THRESHOLD:
                row, column = np.unravel_index(int(cell.argmax()), cell.shape)
                starts.append((left + int(column), top + int(row)))
    before = canvas.copy()
    for number in rng.permutation(len(starts)):
        x, y = starts[number]
        points = list(_stroke(x, y, radius, reference, before, gradient))
        colour = _jittered(reference[y, x], rng)
        # A point is drawn with 4 more bits than a pixel has.
        line = np.rint(np.array(points) * 16).astype(np.int32)[None]
        cv2.polylines(canvas, line, False, colour, 2 * radius, cv2.LINE_AA, 4)


def _stroke(
    x: float, y: float, radius: int, reference: np.ndarray, canvas: np.ndarray, gradient: np.ndarray
) -> Iterator[tuple[float, float]]:
    """§2.2, makeSplineStroke: along the normal of the gradient, for as long as the colour fits."""
    height, width = reference.shape[:2]
    colour = reference[int(y), int(x)].astype(np.float32)
    last = np.zeros(2)
    yield x, y
    for count in range(1, LONGEST):
        row, column = int(y), int(x)
        here = reference[row, column].astype(np.float32)
        of_canvas, of_stroke = np.abs(here - canvas[row, column]).sum(), np.abs(here - colour).sum()
        if count > SHORTEST and of_canvas < of_stroke:
            return
        gx, gy = gradient[row, column]
        if gx == 0 and gy == 0:
            if count > 1:
                return
            gx, gy = 0.0, 1.0  # nothing leads the brush: a stroke from left to right
        along = np.array([-gy, gx], np.float64)
        along = -along if last @ along < 0 else along
        along = CURVATURE * along / np.linalg.norm(along) + (1 - CURVATURE) * last
        last = along / max(np.linalg.norm(along), 1e-9)
        x, y = x + radius * last[0], y + radius * last[1]
        if not (0 <= x < width and 0 <= y < height):
            return
        yield x, y


def _jittered(colour: np.ndarray, rng: np.random.Generator) -> tuple[int, int, int]:
    """§3.1: hue, saturation and value at random about the colour."""
    hue, saturation, value = cv2.cvtColor(np.float32(colour)[None, None] / 255, cv2.COLOR_RGB2HSV)[0, 0]
    dh, ds, dv = JITTER * rng.uniform(-1, 1, 3)
    hsv = np.float32([(hue + 360 * dh) % 360, np.clip(saturation + ds, 0, 1), np.clip(value + dv, 0, 1)])
    red, green, blue = np.rint(cv2.cvtColor(hsv[None, None], cv2.COLOR_HSV2RGB)[0, 0] * 255)
    return int(red), int(green), int(blue)
