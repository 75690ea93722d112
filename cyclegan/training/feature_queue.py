"""Features of earlier images, for discriminators that judge an image beside others (UVCGANv2, §3.2)."""

from collections.abc import Callable

import torch
from torch import Tensor


class FeatureQueue:
    """Keeps a discriminator's features of the last ``size`` images of one kind.

    What a step has seen comes in at its end, in the order of the images' positions: what the queue holds
    depends neither on how a batch is divided, in parts or among processes, nor on their number.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.features: Tensor | None = None  # (up to size, C, h, w)
        self._noted: list[tuple[Tensor, Tensor]] = []

    def note(self, features: Tensor, positions: Tensor) -> None:
        """Remember (N, C, h, w) of the images at ``positions`` until ``commit``."""
        self._noted.append((features.detach(), positions))

    def commit(self, gather: Callable[[Tensor], Tensor]) -> None:
        """Take in what all processes have noted; ``gather`` joins a tensor over them."""
        features, positions = (torch.cat(parts) for parts in zip(*self._noted, strict=True))
        self._noted = []
        features, positions = gather(features.float().contiguous()), gather(positions.to(features.device))
        new = features[positions.argsort(stable=True)[-self.size :]]
        if self.features is not None:
            new = torch.cat([self.features, new])
        self.features = new[-self.size :].clone()

    def drop(self) -> None:
        """Forget what was noted: the update that it was made for is not applied."""
        self._noted = []

    def state(self) -> Tensor | None:
        return None if self.features is None else self.features.cpu()

    def load(self, features: Tensor | None, device: torch.device) -> None:
        self.features = None if features is None else features.to(device)
