"""The images that a generator is judged on, read as it was trained: resized to one square size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from cyclegan.datasets.domain import Domain, spread
from cyclegan.errors import BadInput
from cyclegan.images import read_image, resize, to_tensor

BATCH = 16


@dataclass(frozen=True)
class HeldOut:
    """What is judged on.

    Args:
        sources, targets: held-out images of the source and the target domain.
        train_targets: training images of the target.
        size: images are resized to ``size`` x ``size``, as in training.
        paired: ``targets`` are the truth of ``sources``, in the same order.
    """

    sources: Sequence[Path]
    targets: Sequence[Path]
    train_targets: Sequence[Path]
    size: int
    channels: int
    background: tuple[int, int, int]
    paired: bool

    def batches(self, paths: Sequence[Path]) -> Iterator[Tensor]:
        for start in range(0, len(paths), BATCH):
            yield self.read(paths[start : start + BATCH])

    def read(self, paths: Sequence[Path]) -> Tensor:
        """(N, channels, size, size) in [-1, 1]."""
        pictures = (read_image(path, self.channels, self.background).pixels for path in paths)
        return torch.stack([to_tensor(resize(pixels, self.size, self.size)) for pixels in pictures])


def held_out(
    domain: Domain,
    direction: str,
    size: int,
    channels: int,
    background: tuple[int, int, int],
    images: int | None = None,
) -> HeldOut:
    """A domain's held-out images for one direction, ``images`` of them at most, evenly spread.

    Raises:
        BadInput: fewer than two images on a side.
    """
    sources, targets, train = domain.test_a, domain.test_b, domain.train_b
    if direction == "BtoA":
        sources, targets, train = domain.test_b, domain.test_a, domain.train_a
    if min(len(sources), len(targets)) < 2:
        raise BadInput("evaluation needs two held-out images of each domain at least (testA, testB)")
    if len(train) < 2:
        raise BadInput(f"evaluation needs two training images of domain {direction[-1]} at least")
    if images is not None:
        sources, targets = spread(sources, images), spread(targets, images)
    return HeldOut(sources, targets, train, size, channels, background, domain.is_paired)
