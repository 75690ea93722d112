"""A figure and what it means: the value, the two anchors beside it, and which way is better."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Meaning:
    """What a metric says, whatever its value."""

    better: Literal["lower", "higher", "neither"]
    best: float | None  # what perfect translations would have, where that is known
    says: str


_KID = "distance of the two sets of images, unbiased: the one to trust below a few thousand images"
_FID = "distance of the two sets of images; falls with their number, compare at equal numbers only"

MEANINGS: dict[str, Meaning] = {
    "kid_vgg19": Meaning("lower", 0.0, _KID),
    "kid_inception": Meaning("lower", 0.0, _KID),
    "fid_vgg19": Meaning("lower", 0.0, _FID),
    "fid_inception": Meaning("lower", 0.0, _FID),
    "l1_to_truth": Meaning("lower", 0.0, "mean difference from the true picture, values 0 to 1"),
    "psnr_to_truth": Meaning("higher", 100.0, "peak signal to noise against the true picture, in dB"),
    "ssim_to_truth": Meaning("higher", 1.0, "structural similarity to the true picture"),
    "lpips_alex_to_truth": Meaning("lower", 0.0, "LPIPS (AlexNet) to the true picture"),
    "vgg19_style_distance_to_truth": Meaning(
        "lower", 0.0, "edges, colours and textures against the true picture's, averaged over positions"
    ),
    "vgg19_distance_to_truth": Meaning(
        "lower", 0.0, "VGG-19 features against the true picture's, position by position"
    ),
    "vgg19_distance_to_input": Meaning(
        "neither", None, "how much was changed or lost, by VGG-19 features; 0 is doing nothing"
    ),
    "cycle_l1": Meaning("lower", 0.0, "what the way there and back loses, values 0 to 1"),
    "colour_shift": Meaning("neither", None, "how far a picture's mean colour moves, in CIELAB"),
    "vgg19_pairwise_distance": Meaning(
        "neither", None, "how different the pictures are from each other; far below both anchors: collapse"
    ),
    "vgg19_nearest_train": Meaning(
        "neither", None, "distance to the nearest training image of the target; far below both: copying"
    ),
}

NOTE = (
    "KID is unbiased; FID is not, and falls as the number of images grows. Below a few thousand images only "
    "KID can be compared, with its 95 % interval."
)


@dataclass(frozen=True)
class Figure:
    """One metric of the translations, beside the same metric of two other sets of images.

    Args:
        value: of the translations.
        inputs: of the untranslated inputs in their place: what doing nothing scores.
        target_train: of real training images of the target in their place.
        interval: the 95 % confidence interval of ``value``, where there is one.
        closest: of ``vgg19_nearest_train``: the pair that is nearest, with its distance.
    """

    name: str
    value: float
    inputs: float
    target_train: float
    interval: tuple[float, float] | None = None
    closest: dict[str, Any] | None = None

    @property
    def meaning(self) -> Meaning:
        return MEANINGS[self.name]

    def as_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "value": self.value,
            "interval": self.interval and list(self.interval),
            "inputs": self.inputs,
            "target_train": self.target_train,
            "best": self.meaning.best,
            "better": self.meaning.better,
        }
        return found | ({"closest": self.closest} if self.closest else {})


def metric_names(networks: Sequence[str], paired: bool, closely: bool, both_ways: bool) -> list[str]:
    """The metrics that a judgement with these means gives, in their order."""
    left_out = set()
    if "inception" not in networks:
        left_out |= {"kid_inception", "fid_inception"}
    if "lpips" not in networks:
        left_out |= {"lpips_alex_to_truth"}
    if not closely:
        left_out |= {"vgg19_distance_to_truth", "vgg19_distance_to_input"}
    if not paired:
        left_out |= {name for name in MEANINGS if name.endswith("_to_truth")}
    if not both_ways:
        left_out |= {"cycle_l1"}
    return [name for name in MEANINGS if name not in left_out]
