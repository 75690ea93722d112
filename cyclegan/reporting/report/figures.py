"""What metrics say in words: each beside doing nothing (the ceiling) and the best possible (the floor)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# What a name begins with, and what it measures; whether higher or lower is better follows from the anchors.
MEANINGS = {
    "kid": "distance between the translated and the real pictures of the target, as sets",
    "fid": "distance between the translated and the real pictures of the target, as sets; biased for few",
    "l1": "mean difference to the true picture, pixel by pixel",
    "psnr": "likeness to the true picture, pixel by pixel, in dB; higher is better",
    "ssim": "likeness to the true picture, in structure; higher is better",
    "lpips": "perceptual distance to the true picture",
    "vgg19_style_distance_to_truth": "distance to the true picture in colours and textures",
    "vgg19_distance_to_truth": "distance to the true picture, place by place",
}


@dataclass(frozen=True)
class Figure:
    """One metric of one direction at one step."""

    name: str
    value: float
    interval: str  # ready to be shown, or nothing
    inputs: float | None  # the same metric of the untranslated inputs
    floor: float | None  # and of real pictures of the target

    @property
    def meaning(self) -> str:
        known = [start for start in MEANINGS if self.name.startswith(start)]
        return MEANINGS[max(known, key=len)] if known else ""

    @property
    def way(self) -> float | None:
        """Share of the way from doing nothing (0) to the best possible (1); below 0 it did harm."""
        if self.inputs is None or self.floor is None or self.inputs == self.floor:
            return None
        return (self.inputs - self.value) / (self.inputs - self.floor)

    @property
    def verdict(self) -> str:
        way = self.way
        if way is None:
            return "nothing to compare it with"
        for least, words in ((0.9, "about as good as real pictures"), (0.6, "most of the way"),
                             (0.25, "part of the way"), (0.05, "a little better than doing nothing"),
                             (-0.05, "no better than doing nothing")):  # fmt: skip
            if way >= least:
                return words
        return "worse than doing nothing"


@dataclass(frozen=True)
class Judgement:
    """The newest figures of a direction."""

    direction: str
    step: int | None
    figures: list[Figure]

    @property
    def main(self) -> Figure:
        """The figure that the page's first lines name: the kernel distance where there is one."""
        return next((figure for figure in self.figures if figure.name.startswith("kid")), self.figures[0])


def newest(evaluations: Sequence[dict[str, Any]]) -> list[Judgement]:
    """The last known value of each metric, of each direction that was judged."""
    found = []
    for direction in ("AtoB", "BtoA"):
        figures: dict[str, Figure] = {}
        step = None
        for line in evaluations:
            if line.get("direction") == direction:
                step = line.get("step") or step
                figures |= {figure.name: figure for figure in figures_of(line)}
        if figures:
            found.append(Judgement(direction, step, list(figures.values())))
    return found


def figures_of(line: dict[str, Any]) -> list[Figure]:
    found = []
    for name, facts in line.get("metrics", {}).items():
        value = _number(facts.get("value"))
        if value is not None:
            inputs, floor = _number(facts.get("inputs")), _number(facts.get("target_train"))
            found.append(Figure(name, value, _interval(facts.get("interval")), inputs, floor))
    return found


def curves(evaluations: Sequence[dict[str, Any]]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """By metric and line: the values of both directions over the steps, each with its two anchors.

    A metric that is known at one step only is no curve, and left out.
    """
    found: dict[str, dict[str, dict[int, float]]] = {}
    for line in evaluations:
        if not isinstance(line.get("step"), int):
            continue
        for figure in figures_of(line):
            lines = found.setdefault(figure.name, {})
            named = {"": figure.value, " doing nothing": figure.inputs, " best possible": figure.floor}
            for suffix, value in named.items():
                if value is not None:
                    lines.setdefault(f"{line['direction']}{suffix}", {})[line["step"]] = value
    return {
        metric: {name: sorted(values.items()) for name, values in lines.items()}
        for metric, lines in found.items()
        if len({step for values in lines.values() for step in values}) > 1
    }


def shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def _interval(value: Any) -> str:
    """Half a width, or two ends."""
    if isinstance(value, (list, tuple)) and len(value) == 2 and None not in map(_number, value):
        return f"{shown(value[0])} to {shown(value[1])}"
    return "" if _number(value) is None else f"± {shown(_number(value))}"
