"""What metrics say in words: each beside doing nothing (the ceiling) and the best possible (the floor)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# What a name begins with, and what it measures.
MEANINGS = {
    "kid": "distance between the translated and the real pictures of the target, as sets",
    "fid": "distance between the translated and the real pictures of the target, as sets; higher the fewer "
    "they are",
    "l1": "mean difference from the true picture, pixel by pixel",
    "psnr": "likeness to the true picture, pixel by pixel, in dB; higher is better",
    "ssim": "likeness to the true picture in structure; higher is better",
    "lpips": "perceptual distance to the true picture",
    "vgg19_style_distance_to_truth": "distance to the true picture in colours and textures",
    "vgg19_distance_to_truth": "distance to the true picture, place by place",
    "vgg19_distance_to_input": "how much was changed or lost; 0 is doing nothing",
    "cycle_l1": "what the way there and back loses",
    "colour_shift": "how far a picture's mean colour moves",
    "vgg19_pairwise_distance": "how different the pictures are from each other; far below both: collapse",
    "vgg19_nearest_train": "distance to the nearest training image of the target; far below both: copying",
}
# Distances of whole sets: the best that can be had is what real pictures of the target have.
OF_SETS = ("kid", "fid")
RISING = ("psnr", "ssim")
# Without a best value that means anything: 100 dB and 40 dB look the same.
UNBOUNDED = ("psnr",)


@dataclass(frozen=True)
class Figure:
    """One metric of one direction at one step.

    Attributes:
        inputs: the same metric of the untranslated inputs: doing nothing.
        real: of real training images of the target in the translations' place.
        floor: what the best possible translations would have; None where nobody knows.
        judges: whether one way is better; some figures only describe.
        higher: whether that way is up.
    """

    name: str
    value: float
    interval: tuple[float, float] | None
    inputs: float | None
    real: float | None
    floor: float | None
    judges: bool
    higher: bool = False

    @property
    def meaning(self) -> str:
        known = [start for start in MEANINGS if self.name.startswith(start)]
        return MEANINGS[max(known, key=len)] if known else ""

    @property
    def reach(self) -> str:
        return "" if self.interval is None else f"{shown(self.interval[0])} to {shown(self.interval[1])}"

    @property
    def way(self) -> float | None:
        """Share of the way from doing nothing (0) to the best possible (1); below 0 it did harm.

        None where there is no way: on few images real pictures can score no better than the inputs.
        """
        if not self.judges or self.inputs is None or self.floor is None:
            return None
        if (self.floor <= self.inputs) if self.higher else (self.floor >= self.inputs):
            return None
        return (self.inputs - self.value) / (self.inputs - self.floor)

    @property
    def percent(self) -> str | None:
        return None if self.way is None else f"{round(self.way * 100):d}%"

    @property
    def unsure(self) -> bool:
        """Whether the interval holds what doing nothing scores."""
        known = self.interval is not None and self.inputs is not None
        return known and self.interval[0] <= self.inputs <= self.interval[1]

    @property
    def verdict(self) -> str:
        way = self.way
        if way is None:
            of_sets = self.name.startswith(OF_SETS) and None not in (self.inputs, self.floor)
            return "cannot be told: real pictures score no better than doing nothing" if of_sets else ""
        if self.unsure:
            return "cannot be told from doing nothing"
        for least, words in ((0.9, "about as good as can be"), (0.6, "most of the way"),
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

    @property
    def told(self) -> list[Figure]:
        """The figures that the page shows at once; all others stand in a table."""
        first = [
            figure for figure in self.figures if figure.way is not None and figure.name != self.main.name
        ]
        return [self.main, *first[:2]]

    @property
    def others(self) -> list[Figure]:
        return [figure for figure in self.figures if figure not in self.told]


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
        if value is None:
            continue
        real = _number(facts.get("target_train"))
        floor = real if name.startswith(OF_SETS) else _number(facts.get("best", real))
        if name.startswith(UNBOUNDED):
            floor = None
        judges = facts.get("better") != "neither"
        interval, inputs = _interval(facts.get("interval")), _number(facts.get("inputs"))
        higher = facts.get("better", "higher" if name.startswith(RISING) else "lower") == "higher"
        found.append(Figure(name, value, interval, inputs, real, floor, judges, higher))
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


def _interval(value: Any) -> tuple[float, float] | None:
    if isinstance(value, (list, tuple)) and len(value) == 2 and None not in map(_number, value):
        return float(value[0]), float(value[1])
    return None
