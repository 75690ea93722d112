"""Judge a generator on held-out images, beside the two anchors that give its figures a meaning."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from cyclegan.errors import BadInput
from cyclegan.evaluation.metrics import kid, perceptual_distance
from cyclegan.images import read_image, resize, to_tensor
from cyclegan.networks.vgg19 import WIDTHS, pretrained_vgg19

LAYERS = ("relu1_2", "relu2_2", "relu3_4", "relu4_4", "relu5_4")
# Edges, colours, textures: the style. Deeper blocks say what is drawn, and that a translator is to keep.
STYLE_LAYERS = LAYERS[:3]
BATCH = 16

Translate = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Figure:
    """One metric, lower is better.

    ``untranslated`` is what the inputs themselves score, ``floor`` what real images of the target do.
    """

    name: str
    translated: float
    untranslated: float
    floor: float


def evaluate(
    translate: Translate,
    sources: Sequence[Path],
    targets: Sequence[Path],
    train_targets: Sequence[Path],
    size: int,
    channels: int,
    background: tuple[int, int, int],
    paired: bool,
) -> list[Figure]:
    """KID on VGG-19's style features and, where truth is there, two distances to it.

    ``vgg19_style_distance_to_truth`` compares the same features as KID, averaged over positions, picture
    by picture: it holds where the two domains draw a thing in other shapes or places.
    ``vgg19_distance_to_truth`` compares all five blocks position by position, and means something only
    where the two are aligned.

    Args:
        translate: maps (N, C, size, size) in [-1, 1] to the same.
        sources, targets: held-out images of the source and the target domain.
        train_targets: training images of the target, for the floor.
        size: images are resized to ``size`` x ``size``, as in training.
        paired: ``targets`` are the truth of ``sources``, in the same order.

    Raises:
        BadInput: fewer than two images on a side, or VGG-19's weights are missing.
    """
    if min(len(sources), len(targets)) < 2:
        raise BadInput("evaluation needs two held-out images of each domain at least (testA, testB)")
    judge = pretrained_vgg19()
    read = _Reader(size, channels, background)
    pooled: dict[str, list[Tensor]] = {"translated": [], "untranslated": [], "target": [], "floor": []}
    distances: dict[str, list[Tensor]] = {"translated": [], "untranslated": []}
    wanted = LAYERS if paired else STYLE_LAYERS  # the deep blocks cost as much again
    for number, real in enumerate(read.batches(sources)):
        layers = {
            "translated": judge_layers(judge, translate(real), wanted),
            "untranslated": judge_layers(judge, real, wanted),
        }
        if paired:
            layers["target"] = judge_layers(judge, read.batch(targets, number), wanted)
        for name, found in layers.items():
            pooled[name].append(pooled_features(found))
        for name, found in distances.items() if paired else ():
            found.append(perceptual_distance(layers[name], layers["target"]))
    others = {"floor": _spread(train_targets, len(targets))} | ({} if paired else {"target": targets})
    for name, paths in others.items():
        batches = (judge_layers(judge, images, STYLE_LAYERS) for images in read.batches(paths))
        pooled[name] = [pooled_features(found) for found in batches]
    features = {name: torch.cat(found) for name, found in pooled.items()}
    scales = layer_scales(features["target"])
    features = {name: found / scales for name, found in features.items()}
    target = features.pop("target")
    figures = [Figure("kid_vgg19", **{name: kid(found, target) for name, found in features.items()})]
    if paired:
        styles = {name: float((features[name] - target).square().mean()) for name in distances}
        means = {name: float(torch.cat(found).mean()) for name, found in distances.items()}
        figures.append(Figure("vgg19_style_distance_to_truth", **styles, floor=0.0))
        figures.append(Figure("vgg19_distance_to_truth", **means, floor=0.0))
    return figures


def _spread(paths: Sequence[Path], count: int) -> list[Path]:
    """As many files as asked, taken evenly from the list."""
    count = min(count, len(paths))
    return [paths[i * len(paths) // count] for i in range(count)]


@dataclass(frozen=True)
class _Reader:
    size: int
    channels: int
    background: tuple[int, int, int]

    def batches(self, paths: Sequence[Path]) -> Iterator[Tensor]:
        for number in range(-(-len(paths) // BATCH)):
            yield self.batch(paths, number)

    def batch(self, paths: Sequence[Path], number: int) -> Tensor:
        chosen = paths[number * BATCH : (number + 1) * BATCH]
        pictures = (read_image(path, self.channels, self.background) for path in chosen)
        return torch.stack([to_tensor(resize(p.pixels, self.size, self.size)) for p in pictures])


@torch.inference_mode()
def judge_layers(judge: nn.Module, images: Tensor, layers: Sequence[str] = LAYERS) -> dict[str, Tensor]:
    """Activations of (N, 1 or 3, H, W), at the size that the images have."""
    return judge(images.expand(-1, 3, -1, -1), layers)


def pooled_features(activations: Mapping[str, Tensor]) -> Tensor:
    """(N, 448): the style layers' activations averaged over positions, side by side."""
    return torch.cat([activations[name].mean(dim=(2, 3)) for name in STYLE_LAYERS], dim=1)


def layer_scales(target: Tensor) -> Tensor:
    """(448,): the root mean square of each layer in the target's (N, 448) features.

    VGG-19 is not normalized: raw, its layers differ by orders of magnitude, and KID's cubic kernel would
    see one of them alone. In these units every layer counts.
    """
    layers = target.split([WIDTHS[int(name[4]) - 1] for name in STYLE_LAYERS], dim=1)
    return torch.cat([layer.square().mean().sqrt().expand(layer.shape[1]) for layer in layers])
