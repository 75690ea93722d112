"""How a discriminator sees images in one step: augmented, and beside features of earlier ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cyclegan import chance
from cyclegan.losses import DRAWS, Scores, diff_augment
from cyclegan.training.feature_queue import FeatureQueue


@dataclass(frozen=True)
class View:
    """The view of one part of a batch, of one kind (reals or fakes of a domain).

    Args:
        policy, draws: of ``diff_augment``.
        queue: of a discriminator that has one.
        positions: of the images, where the queue is to remember them; else None.
    """

    policy: tuple[str, ...] = ()
    draws: Sequence[Sequence[float]] = ()
    queue: FeatureQueue | None = None
    positions: Tensor | None = None

    def seen(self, images: Tensor) -> Tensor:
        return diff_augment(images, self.draws, self.policy) if self.policy else images

    def scores(self, network: nn.Module, seen: Tensor) -> Scores:
        """Of images as ``seen`` gives them."""
        if self.queue is None:
            return network(seen)
        scores, features = network.judge(seen, self.queue.features)
        if self.positions is not None:
            self.queue.note(features, self.positions)
        return scores


PLAIN = View()


def augmentation_draws(seed: int, kind: str, update: int, positions: Sequence[int]) -> list[list[float]]:
    """Random numbers for ``diff_augment``: of the seed, the kind of images and their positions alone."""
    purpose = f"augment {kind} {update}"
    return [chance.rng(seed, purpose, position).random(DRAWS).tolist() for position in positions]


def between(real: View, fake: View, mix: Tensor) -> Tensor | None:
    """For each image between a real and a fake, the queued features between those of their queues.

    Args:
        mix: (N, 1, 1, 1), the share of the real.

    Returns:
        (N, Q, C, h, w), or None where nothing is queued.
    """
    if real.queue is None or real.queue.features is None or fake.queue is None:
        return None
    share = mix[:, None]
    return torch.lerp(fake.queue.features.to(share.dtype), real.queue.features.to(share.dtype), share)
