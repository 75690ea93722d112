"""Judge translations of held-out images, beside the two anchors that give the figures a meaning."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor

from cyclegan.datasets.domain import spread
from cyclegan.errors import BadInput
from cyclegan.evaluation.features import (
    ALEXNET_URL,
    LAYERS,
    STYLE_LAYERS,
    InceptionJudge,
    LPIPSJudge,
    cached_weights,
    layer_scales,
    layouts,
    pooled_features,
    vgg19_judge,
)
from cyclegan.evaluation.figures import Figure, metric_names
from cyclegan.evaluation.held_out import BATCH, HeldOut
from cyclegan.evaluation.metrics import (
    fid,
    kid,
    kid_with_interval,
    mean_pairwise_distance,
    nearest,
    perceptual_distance,
    pixel_agreement,
)
from cyclegan.images import from_tensor

ANCHOR_IMAGES = 64  # pictures that have nothing to do with each other: their mean distance needs no more
LIBRARY = 2000  # training images that are looked through for copies

Translate = Callable[[Tensor], Tensor]
Group = Literal["outputs", "inputs", "train", "target", "library"]


@dataclass
class _Gathered:
    """What is kept of a set of images: features of all, and distances of each to its partner."""

    features: dict[str, list[Tensor]] = field(default_factory=dict)
    distances: dict[str, list[Tensor]] = field(default_factory=dict)

    def add(self, features: Mapping[str, Tensor]) -> None:
        for name, values in features.items():
            self.features.setdefault(name, []).append(values)

    def compare(self, distances: Mapping[str, Tensor]) -> None:
        for name, values in distances.items():
            self.distances.setdefault(name, []).append(values)

    def all(self, name: str) -> Tensor:
        return torch.cat(self.features[name])

    def mean(self, name: str) -> float:
        return float(torch.cat(self.distances[name]).double().mean())


class Judge:
    """Judges translations of the same held-out images, again and again.

    What does not depend on the translations is computed with the first of them and kept.

    Args:
        networks: ``vgg19`` is always among them; ``inception`` and ``lpips`` are fetched if they are
            not here.
        closely: with the two distances that compare VGG-19's features position by position; they cost
            as much as all the rest.

    Raises:
        BadInput: the weights of a network cannot be had.
    """

    def __init__(
        self,
        data: HeldOut,
        device: torch.device,
        networks: Sequence[str] = ("vgg19",),
        closely: bool = True,
    ) -> None:
        self.data, self.device, self.closely = data, device, closely
        self.layers = LAYERS if closely else STYLE_LAYERS
        self.vgg19 = vgg19_judge(device)
        self.inception = InceptionJudge(device) if "inception" in networks else None
        # Used wherever its weights are here already; fetched only for those who name it.
        wanted = "lpips" in networks or (closely and cached_weights(ALEXNET_URL).is_file())
        self.lpips = LPIPSJudge(device) if wanted and data.paired else None
        floor = spread(data.train_targets, len(data.targets))
        self.library = sorted({*spread(data.train_targets, LIBRARY), *floor})
        places = {path: number for number, path in enumerate(self.library)}
        self.floor = torch.tensor([places[path] for path in floor])
        self.anchors = spread(floor, min(ANCHOR_IMAGES, len(data.sources)))
        self.known: dict[Group, _Gathered] = {}

    def __call__(self, translate: Translate, back: Translate | None = None) -> list[Figure]:
        """The figures of one generator.

        Args:
            translate: maps (N, C, size, size) in [-1, 1] to the same.
            back: the other generator, for the cycle error.
        """
        outputs, known = _Gathered(), self.known
        first = not known
        fresh: dict[Group, _Gathered] = {g: _Gathered() for g in ("inputs", "train", "target", "library")}
        for number, real in enumerate(self.data.batches(self.data.sources)):
            truth = self._truth(number)
            fake = translate(real)
            if not fake.isfinite().all():
                raise BadInput("the generator's pictures hold NaN or infinite values")
            rec = back(fake) if back is not None else None
            images: dict[str, Tensor] = {"outputs": fake}
            if first or self.closely:
                images["inputs"] = real
            if truth is not None and (first or self.closely):
                images["target"] = truth
            seen = {name: self.vgg19.layers(batch, self.layers) for name, batch in images.items()}
            groups = {"outputs": outputs} | ({name: fresh[name] for name in seen if name != "outputs"})
            for name, group in groups.items() if first else [("outputs", outputs)]:
                group.add(self._features(seen[name], images[name]))
            self._compare(outputs, fake, seen["outputs"], real, truth, seen, rec)
            if first:
                same = None if back is None else real  # doing nothing, there and back
                self._compare(fresh["inputs"], real, seen["inputs"], real, truth, seen, same)
                self._compare_unrelated(fresh["train"], number, real, truth, seen, back is not None)
        if first:
            self._complete(fresh)
            self.known = known = fresh
        return self._figures(outputs, known)

    def _truth(self, number: int) -> Tensor | None:
        if not self.data.paired:
            return None
        return self.data.read(self.data.targets[number * BATCH : (number + 1) * BATCH])

    def _complete(self, fresh: Mapping[Group, _Gathered]) -> None:
        """The training images of the target, and its held-out ones where they are no truth."""
        rest: dict[Group, Sequence[Path]] = {"library": self.library}
        if not self.data.paired:
            rest["target"] = self.data.targets
        for name, paths in rest.items():
            for batch in self.data.batches(paths):
                fresh[name].add(self._features(self.vgg19.layers(batch, STYLE_LAYERS), batch))

    def _features(self, seen: Mapping[str, Tensor], images: Tensor) -> dict[str, Tensor]:
        found = {"vgg19": pooled_features(seen), "layout": layouts(seen)}
        if self.inception is not None:
            found["inception"] = self.inception.features(images)
        return found

    def _compare(
        self,
        group: _Gathered,
        images: Tensor,
        seen: Mapping[str, Tensor],
        real: Tensor,
        truth: Tensor | None,
        others: Mapping[str, Mapping[str, Tensor]],
        rec: Tensor | None,
    ) -> None:
        """Distances of ``images`` to their inputs and, where there is truth, to that."""
        nothing = torch.zeros(len(images)) if images is real else None  # what doing nothing changes
        found = {"colour_shift": colour_shift(images, real) if nothing is None else nothing}
        if rec is not None:
            found["cycle_l1"] = pixel_agreement(rec, real)["l1"]
        if self.closely:
            distance = perceptual_distance(seen, others["inputs"]) if nothing is None else nothing
            found["vgg19_distance_to_input"] = distance
        if truth is not None:
            found |= {f"{k}_to_truth": v for k, v in pixel_agreement(images, truth).items()}
            if self.lpips is not None:
                found["lpips_alex_to_truth"] = self.lpips.distance(images, truth)
            if self.closely:
                found["vgg19_distance_to_truth"] = perceptual_distance(seen, others["target"])
        group.compare(found)

    def _compare_unrelated(
        self,
        group: _Gathered,
        number: int,
        real: Tensor,
        truth: Tensor | None,
        seen: Mapping[str, Mapping[str, Tensor]],
        both_ways: bool,
    ) -> None:
        """Training images of the target in the place of translations: real, and of something else."""
        paths = self.anchors[number * BATCH : (number + 1) * BATCH]
        if not paths:
            return
        images = self.data.read(paths)
        count = len(images)
        layers = self.vgg19.layers(images, self.layers) if self.closely else {}
        cut = {name: {key: v[:count] for key, v in found.items()} for name, found in seen.items()}
        truth = None if truth is None else truth[:count]
        self._compare(group, images, layers, real[:count], truth, cut, images if both_ways else None)

    def _figures(self, outputs: _Gathered, known: Mapping[Group, _Gathered]) -> list[Figure]:
        inputs, target, library = known["inputs"], known["target"], known["library"]
        figures = []
        scales = layer_scales(target.all("vgg19"))
        for network in ("vgg19", "inception") if self.inception is not None else ("vgg19",):
            units = scales if network == "vgg19" else torch.ones(())
            ours, theirs, real = (group.all(network) / units for group in (outputs, inputs, target))
            train = library.all(network)[self.floor] / units
            value, interval = kid_with_interval(ours, real)
            figures.append(
                Figure(f"kid_{network}", value, kid(theirs, real), kid(train, real), interval=interval)
            )
            figures.append(Figure(f"fid_{network}", *(fid(x, real) for x in (ours, theirs, train))))
            if network == "vgg19" and self.data.paired:
                count = min(len(train), len(real))
                pairs = ((ours, real), (theirs, real), (train[:count], real[:count]))
                styles = [float((x - y).square().mean()) for x, y in pairs]
                figures.append(Figure("vgg19_style_distance_to_truth", *styles))
        for name in outputs.distances:
            figures.append(Figure(name, *(g.mean(name) for g in (outputs, inputs, known["train"]))))
        figures += self._across(outputs.all("layout"), inputs.all("layout"), library.all("layout"))
        order = metric_names(
            [n for n, judge in (("inception", self.inception), ("lpips", self.lpips)) if judge is not None],
            self.data.paired,
            self.closely,
            both_ways="cycle_l1" in outputs.distances,
        )
        return sorted(figures, key=lambda figure: order.index(figure.name))

    def _across(self, ours: Tensor, inputs: Tensor, library: Tensor) -> list[Figure]:
        """Collapse and copying: distances of the translations among each other and to training images."""
        train = library[self.floor]
        pairwise = (mean_pairwise_distance(x) for x in (ours, inputs, train))
        distances, indices = nearest(ours, library)
        alone = nearest(train, library, itself=self.floor)[0] if len(library) > 1 else torch.zeros(1)
        closest = int(distances.argmin())
        pair = {
            "input": self.data.sources[closest].name,
            "train": self.library[int(indices[closest])].name,
            "distance": float(distances[closest]),
        }
        values = (float(d.double().mean()) for d in (distances, nearest(inputs, library)[0], alone))
        return [
            Figure("vgg19_pairwise_distance", *pairwise),
            Figure("vgg19_nearest_train", *values, closest=pair),
        ]


def colour_shift(images: Tensor, real: Tensor) -> Tensor:
    """(N,): distance of two images' mean colours in CIELAB (D65), pair by pair; 2 is just visible."""
    colours = []
    for batch in (images, real):
        pixels = [from_tensor(image, np.float32) for image in batch]
        pixels = [np.repeat(p, 3, axis=2) if p.shape[2] == 1 else p for p in pixels]
        colours.append(
            [cv2.cvtColor(np.ascontiguousarray(p), cv2.COLOR_RGB2LAB).mean((0, 1)) for p in pixels]
        )
    return torch.from_numpy(np.linalg.norm(np.array(colours[0]) - np.array(colours[1]), axis=1))
