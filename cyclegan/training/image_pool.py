"""The image pool: a history of fakes to show to a discriminator (Shrivastava et al. 2017, §2.3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cyclegan import chance


class ImagePool:
    """Keeps up to ``size`` fakes; CycleGAN §4 uses 50.

    While it fills, what comes in goes out and is kept. After that each fake is, with probability 1/2,
    exchanged for a kept one. The choices depend on the seed and the fake's position alone, so pools
    that see the same fakes on several processes stay the same.
    """

    def __init__(self, size: int, seed: int, name: str) -> None:
        self.size, self.seed, self.name = size, seed, name
        self.images: list[Tensor] = []

    def query(self, fakes: Tensor, positions: Sequence[int], update: int = 0) -> Tensor:
        """Exchange (N, C, H, W) fresh fakes, shown at ``positions``, for as many to judge.

        Where a step updates the discriminators more than once, each ``update`` draws anew.
        """
        if self.size == 0:
            return fakes
        name = f"pool {self.name}" if update == 0 else f"pool {self.name} {update}"
        return torch.stack([self._exchange(fake, p, name) for fake, p in zip(fakes, positions, strict=True)])

    def _exchange(self, fake: Tensor, position: int, name: str) -> Tensor:
        if len(self.images) < self.size:
            self.images.append(fake.clone())
            return fake
        draw = chance.rng(self.seed, name, position)
        if draw.random() < 0.5:
            return fake
        slot = int(draw.integers(self.size))
        kept, self.images[slot] = self.images[slot], fake.clone()
        return kept

    def state(self) -> list[Tensor]:
        return [image.cpu() for image in self.images]

    def load(self, images: list[Tensor], device: torch.device) -> None:
        self.images = [image.to(device) for image in images]
