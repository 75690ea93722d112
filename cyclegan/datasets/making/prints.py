"""Prints in one ink, as the printers of the nineteenth century made them of photographs."""

import cv2
import numpy as np

# By look: the paper, and the ink where it lies thickest; sRGB.
INKS = {
    "cyanotype": ((238, 242, 240), (0, 38, 92)),  # Prussian blue
    "sepia": ((250, 240, 220), (52, 28, 12)),
    "red chalk": ((246, 236, 222), (150, 34, 16)),
    "gum": ((238, 240, 222), (14, 62, 34)),  # chromium oxide green in gum arabic
}


def printed(picture: np.ndarray, rng: np.random.Generator, look: str) -> np.ndarray:
    """A picture in one ink on its paper: the darker a place, the thicker the ink.

    Ink lets through a share of the light for each layer of it (Beer and Lambert), so paper turns into ink by
    powers of that share, in linear light.

    Args:
        picture: (H, W, 3) uint8.
        rng: not used, for a print leaves nothing to chance; all renderers take it.
        look: a key of ``INKS``.

    Returns:
        (H, W, 3) uint8.
    """
    paper, ink = (_to_linear(np.array(colour) / 255) for colour in INKS[look])
    thickness = 1 - cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float64)[:, :, None] / 255
    made = paper * (np.maximum(ink, 1e-3) / paper) ** thickness
    return np.rint(_to_srgb(made) * 255).astype(np.uint8)


def _to_linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def _to_srgb(linear: np.ndarray) -> np.ndarray:
    return np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
