"""What an optimized picture is to keep, to take over, and how long it may take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cyclegan.config import LARGEST_SIZE
from cyclegan.errors import BadInput, nearest
from cyclegan.networks.vgg19 import LAYERS

Optimizer = Literal["lbfgs", "adam"]
Start = Literal["content", "noise", "fast"]
SMALLEST = 16  # pixels a side that VGG-19's four halvings need
FEWEST_STEPS = 10  # of each scale, unless the first has fewer: two or three would hardly touch it
COARSEST = 192  # pixels of the longer side that the first scale has at least

# Gatys et al. 2016, §3.1; the weights, 1/C^2 for C channels, are those of the authors' own later program.
CONTENT_LAYERS = {"relu4_2": 1.0}
STYLE_LAYERS = {"relu1_1": 1.0, "relu2_1": 1 / 4, "relu3_1": 1 / 16, "relu4_1": 1 / 64, "relu5_1": 1 / 64}


@dataclass(frozen=True)
class Optimization:
    """The choices of one optimization.

    Args:
        content_weight: of the content term, that what is shown stays.
        style_weight: of the style term, that the look is taken over.
        tv_weight: of total variation, that neighbouring pixels are alike.
        content_layers: activations of VGG-19 and their weights within the content term; default relu4_2 1.
        style_layers: likewise within the style term; default relu1_1 1, falling as 1/C^2 to relu5_1 1/64.
        optimizer: L-BFGS, or Adam.
        start: what is changed step by step: the content, noise, or what the fast network makes.
        steps: at the coarsest scale; each finer one takes half as many as the one before, but 10 at least
            where there are as many.
        coarse_to_fine: begin small and double the size, rather than work at the full size throughout.
        size: longer side of the picture as it is computed; default its own.
        style_scale: size of the style picture, and so of its strokes, relative to the content; never larger
            than it is.
        keep_colours: take over the style's light and dark only.
        seed: of the noise.

    Raises:
        BadInput: a value out of its range, or a layer that VGG-19 does not have.
    """

    content_weight: float = 1.0
    style_weight: float = 0.25
    tv_weight: float = 0.0
    content_layers: dict[str, float] | None = None
    style_layers: dict[str, float] | None = None
    optimizer: Optimizer = "lbfgs"
    start: Start = "content"
    steps: int = 200
    coarse_to_fine: bool = True
    size: int | None = None
    style_scale: float = 1.0
    keep_colours: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("content_weight", "style_weight", "tv_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise BadInput(f"{name}: must be 0 or more, not {getattr(self, name):g}")
        for name in ("content_layers", "style_layers"):
            if getattr(self, name) is not None:
                _check_layers(name, getattr(self, name))
        if not (
            self.content_weight * sum(self.content.values()) + self.style_weight * sum(self.style.values())
        ):
            raise BadInput(
                "content_weight, style_weight: one of them must be more than 0, with one of its layers"
            )
        if self.steps < 1:
            raise BadInput(f"steps: must be 1 or more, not {self.steps}")
        if self.seed != 0 and self.start != "noise":
            raise BadInput(f"seed: is of the noise of --start noise, and there is none with {self.start!r}")
        if self.size is not None and not SMALLEST <= self.size <= LARGEST_SIZE:
            raise BadInput(f"size: must be {SMALLEST} to {LARGEST_SIZE}, not {self.size}")
        if not 0.1 <= self.style_scale <= 10:
            raise BadInput(f"style_scale: must be 0.1 to 10, not {self.style_scale:g}")

    @property
    def content(self) -> Mapping[str, float]:
        """Layers of the content term, and their weights."""
        return self.content_layers or CONTENT_LAYERS

    @property
    def style(self) -> Mapping[str, float]:
        """Layers of the style term, and their weights."""
        return self.style_layers or STYLE_LAYERS

    def scales(self, height: int, width: int) -> list[tuple[int, int]]:
        """Height and width of the picture at each scale, the coarsest first."""
        sides = [self.size or max(height, width)]
        while self.coarse_to_fine and sides[0] // 2 >= COARSEST:
            sides.insert(0, sides[0] // 2)
        return [sized(height, width, side) for side in sides]

    def style_pixels(self, height: int, width: int) -> float:
        """How many pixels a style picture has at most where the content has this size."""
        return height * width * self.style_scale**2

    def steps_at(self, scale: int) -> int:
        """How many steps the scale of this number takes, 0 for the coarsest."""
        return max(min(self.steps, FEWEST_STEPS), round(self.steps / 2**scale))

    def record(self) -> dict[str, Any]:
        """The choices as plain values, for the record."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**values, "content_layers": dict(self.content), "style_layers": dict(self.style)}


def sized(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width of a picture whose longer side is to be ``size``."""
    longer = max(height, width)
    return max(SMALLEST, round(height * size / longer)), max(SMALLEST, round(width * size / longer))


def _check_layers(name: str, layers: Mapping[str, float]) -> None:
    if not layers:
        raise BadInput(f"{name}: names no layer, such as {LAYERS[0]}")
    for layer, weight in layers.items():
        if layer not in LAYERS:
            raise BadInput(
                f"{name}: VGG-19 has no layer {layer!r}{nearest(layer, LAYERS)} (relu1_1 to relu5_4)"
            )
        if not 0 <= weight < float("inf"):
            raise BadInput(f"{name}: the weight of {layer} must be 0 or more, not {weight:g}")
