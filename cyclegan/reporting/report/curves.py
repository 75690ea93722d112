"""metrics.jsonl as the page's curves: grouped, thinned where there are more points than pixels."""

import math
from collections.abc import Sequence
from typing import Any

MOST_POINTS = 2000
X_AXES = ("step", "images_seen", "epoch")

# Title, what it says, and how the names of its lines begin; a name goes to the first that takes it.
GROUPS = (
    ("Adversarial", "Generators against discriminators. These only balance each other: they say whether "
     "training is stable, not whether pictures are good.", ("adversarial", "D_A", "D_B")),
    ("Counterfeits", "How far discriminators take pictures of their own domain that have wrong edges for "
     "true ones; before weighting.", ("edge_",)),
    ("Cycle", "How far a picture, translated and translated back, is from itself; before weighting.",
     ("cycle",)),
    ("Contrast", "How hard it is to tell what each patch of a translation was made of; before weighting.",
     ("nce",)),
    ("Content and style", "Of translations: how far from their inputs in what they show (VGG-19's features; "
     "colours and layout from afar), from the style in how they look, and how restless; before weighting.",
     ("content", "consist", "style", "total_variation")),
    ("Identity", "How much a generator changes what is of its target already; before weighting.",
     ("identity",)),
    ("Speed", "Images of A a second.", ("images_per_s",)),
    ("Learning rate", "", ("lr_",)),
    ("Gradients", "How large the gradient of each network's last update was. Growing without end, it tells "
     "of trouble before the losses do.", ("gradient_norm_",)),
    ("Other", "", ("",)),
)  # fmt: skip


def chart_data(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the page draws: steps, images seen, and groups of named lines; NaN becomes a gap.

    Beyond ``MOST_POINTS`` lines each point is the mean of ``bin`` lines and stands at the last one's step.
    """
    size = -(-len(metrics) // MOST_POINTS) or 1
    bins = [metrics[i : i + size] for i in range(0, len(metrics), size)]
    names = list(dict.fromkeys(name for line in metrics for name in line if name not in X_AXES))
    groups: list[dict[str, Any]] = []
    left = [name for name in names if any(_number(line.get(name)) is not None for line in metrics)]
    for title, says, starts in GROUPS:
        taken = [name for name in left if name.startswith(starts)]
        left = [name for name in left if name not in taken]
        if taken:
            lines = [{"name": name, "values": [_mean(part, name) for part in bins]} for name in taken]
            # The learning rate is set, not measured: to smooth it would show what was never used.
            smooth = title != "Learning rate"
            groups.append({"title": title, "says": says, "smooth": smooth, "lines": lines})
    return {
        "bin": size,
        "steps": [part[-1]["step"] for part in bins],
        "images": [part[-1].get("images_seen") for part in bins],
        "groups": groups,
    }


def _mean(lines: Sequence[dict[str, Any]], name: str) -> float | None:
    values = [value for value in (_number(line.get(name)) for line in lines) if value is not None]
    return float(f"{sum(values) / len(values):.6g}") if values else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)
