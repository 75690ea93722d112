"""Content, style, total variation and likeness of translations, as terms of the generators' loss.

After Gatys et al. (2016), Rudin et al. (1992) and UVCGANv2. Features are VGG-19's, which is fixed, and
neither trained nor saved. Distances of features are relative, so that a weight means the same
in each layer: 1 is as far as a picture without any features.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cyclegan.config import LossSettings, TrainSettings
from cyclegan.datasets.domain import spread_readable
from cyclegan.datasets.scale import Scale, picture_at
from cyclegan.evaluation.features import vgg19_judge
from cyclegan.losses import consistency_loss, content_loss, gram, style_loss, total_variation

STYLE_IMAGES = 256  # of a domain's training images; more hardly move their mean
Grams = dict[str, Tensor]  # by layer, (1, C, C)


class Perceptual:
    """The terms that the settings give a weight.

    ``styles`` are what the style loss leads to, by domain: Gram matrices that ``learn`` computes once; they
    are part of every checkpoint, so that a run that goes on has the ones it began with.
    """

    def __init__(self, settings: LossSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device
        looks = settings.lambda_content > 0 or settings.lambda_style > 0
        self.network = vgg19_judge(device).network if looks else None
        self.styles: dict[str, Grams] = {}

    def __call__(self, direction: str, source: Tensor, fake: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and each loss by name before weighting.

        Args:
            direction: ``AtoB`` or ``BtoA``.
            source, fake: (N, C, H, W) in [-1, 1], images and their translations.
        """
        w, suffix = self.settings, direction.replace("to", "").lower()
        total, losses = fake.new_zeros(()), {}
        content = w.content_layers if w.lambda_content > 0 else ()
        style = w.style_layers if w.lambda_style > 0 else ()
        seen = self._features(fake, {*content, *style}) if content or style else {}
        if content:
            with torch.no_grad():
                wanted = self._features(source, content)
            losses[f"content_{suffix}"] = _content({name: seen[name] for name in content}, wanted)
            total = total + w.lambda_content * losses[f"content_{suffix}"]
        if style:
            targets = self.styles[direction[-1]]
            losses[f"style_{suffix}"] = _style({name: seen[name] for name in style}, targets)
            total = total + w.lambda_style * losses[f"style_{suffix}"]
        if w.lambda_total_variation > 0:
            losses[f"total_variation_{suffix}"] = total_variation(fake)
            total = total + w.lambda_total_variation * losses[f"total_variation_{suffix}"]
        if w.lambda_consist > 0:
            losses[f"consist_{suffix}"] = consistency_loss(fake, source, w.consist_size)
            total = total + w.lambda_consist * losses[f"consist_{suffix}"]
        return total, losses

    @torch.no_grad()
    def learn(self, side: str, pictures: Iterable[Tensor]) -> None:
        """Keep the mean Gram matrices of pictures (1, C, H, W) in [-1, 1] as the style of a domain."""
        found: Grams = {}
        count = 0
        for picture in pictures:
            count += 1
            for name, features in self._features(picture.to(self.device), self.settings.style_layers).items():
                found[name] = found.get(name, 0) + gram(features).mean(dim=0, keepdim=True)
        self.styles[side] = {name: total / count for name, total in found.items()}

    def state(self) -> dict[str, Grams]:
        """What was learned, by domain."""
        return self.styles

    def load(self, styles: Mapping[str, Grams]) -> None:
        """Take over what was learned elsewhere or before."""
        self.styles = {
            side: {name: target.to(self.device) for name, target in grams.items()}
            for side, grams in styles.items()
        }

    def _features(self, images: Tensor, layers: Iterable[str]) -> Grams:
        """Activations by layer, in fp32, of images with one channel or three."""
        seen = self.network(images.expand(-1, 3, -1, -1), set(layers))
        return {name: features.float() for name, features in seen.items()}


def _content(found: Grams, wanted: Grams) -> Tensor:
    """Mean over layers and images of |x - y|^2 / |y|^2; each image has a measure of its own."""
    terms = []
    for name, target in wanted.items():
        unit = target.square().mean(dim=(1, 2, 3), keepdim=True).sqrt().clamp_min(1e-6)
        terms.append(content_loss(found[name] / unit, target / unit))
    return torch.stack(terms).mean()


def _style(found: Grams, targets: Grams) -> Tensor:
    """Mean over layers and images of |G - A|^2 / |A|^2."""
    units = {name: target.square().sum().sqrt() for name, target in targets.items()}
    # Not under autocast: sums over all places lose in half precision what differs.
    with torch.autocast(next(iter(found.values())).device.type, enabled=False):
        return style_loss(
            {name: gram(features) / units[name] for name, features in found.items()},
            {name: target / units[name] for name, target in targets.items()},
        )


def style_pictures(settings: TrainSettings, side: str, train: Sequence[Path]) -> Iterator[Tensor]:
    """What the style of a domain is learned from: the picture that is named, else its training images.

    They are as large as training sees them before it crops, so that strokes are as broad. Of a large picture
    that is named the middle is taken, and of each training image at most twice the training size.

    Args:
        train: the files of the training images; evenly spread ones are taken.

    Raises:
        BadInput: the picture that is named cannot be read or has too few pixels, or all others.
    """
    named, data = settings.losses.style_pictures.get(side), settings.data
    if named is not None:
        yield picture_at(Scale.of(settings), named, data.channels, data.background)
    else:
        yield from pictures_as_trained(settings, train, STYLE_IMAGES)


def pictures_as_trained(settings: TrainSettings, paths: Sequence[Path], count: int) -> Iterator[Tensor]:
    """As many of a domain's training images, taken evenly, each as ``picture_at``, twice the size at most.

    Raises:
        BadInput: none of them can be read.
    """
    data, scale = settings.data, Scale.of(settings)
    largest = max(2 * scale.size, 256)
    return spread_readable(
        paths, count, lambda path: picture_at(scale, path, data.channels, data.background, largest)
    )
