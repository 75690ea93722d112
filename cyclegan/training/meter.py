"""Losses and speed between two lines of the log."""

import time
from collections import Counter
from collections.abc import Mapping

import torch
from accelerate import Accelerator
from torch import Tensor


class Meter:
    """Losses averaged over steps and processes since the last summary, and the speed meanwhile."""

    def __init__(self, accelerator: Accelerator, batch_size: int) -> None:
        self.accelerator, self.batch_size = accelerator, batch_size
        self.sums: dict[str, Tensor] = {}
        self.counts: Counter[str] = Counter()  # pre-training has other losses than what follows it
        self.steps = 0
        self.since = time.monotonic()
        self.last: dict[str, float] = {}
        self.images_per_s = 0.0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss if name in self.sums else loss
        self.counts.update(losses.keys())
        self.steps += 1

    def summary(self) -> dict[str, float]:
        """Mean losses over all processes, with ``images_per_s``; begins anew."""
        means = torch.stack([value.float() / self.counts[name] for name, value in self.sums.items()])
        means = self.accelerator.reduce(means, "mean").tolist()
        self.images_per_s = self.steps * self.batch_size / (time.monotonic() - self.since)
        self.last = dict(zip(self.sums, means, strict=True))
        self.sums, self.counts, self.steps, self.since = {}, Counter(), 0, time.monotonic()
        return {**self.last, "images_per_s": self.images_per_s}
