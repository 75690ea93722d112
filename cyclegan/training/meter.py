"""Losses and speed between two lines of the log."""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

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
        self.loaded = 0  # of the steps, those before a resume: they tell nothing of the speed
        self.since = time.monotonic()
        self.last: dict[str, float] = {}
        self.images_per_s = 0.0

    def add(self, losses: Mapping[str, Tensor]) -> None:
        for name, loss in losses.items():
            self.sums[name] = self.sums[name] + loss.float() if name in self.sums else loss.float()
        self.counts.update(losses.keys())
        self.steps += 1

    def summary(self) -> dict[str, float]:
        """Mean losses over all processes, with ``images_per_s``; begins anew. No steps, no losses."""
        means = []
        if self.sums:
            stacked = torch.stack([value / self.counts[name] for name, value in self.sums.items()])
            means = self.accelerator.reduce(stacked, "mean").tolist()
        self.images_per_s = (self.steps - self.loaded) * self.batch_size / (time.monotonic() - self.since)
        self.last = dict(zip(self.sums, means, strict=True))
        self.sums, self.counts, self.steps, self.loaded = {}, Counter(), 0, 0
        self.since = time.monotonic()
        return {**self.last, "images_per_s": self.images_per_s}

    def state(self) -> dict[str, Any]:
        """The sums so far, averaged over processes; all of them must call it, all get the same."""
        if not self.sums:
            return {"steps": 0, "sums": {}, "counts": {}}
        sums = torch.stack(list(self.sums.values()))
        if self.accelerator.num_processes > 1:
            sums = self.accelerator.reduce(sums, "mean")
        named = dict(zip(self.sums, sums.unbind(), strict=True))
        return {"steps": self.steps, "sums": named, "counts": dict(self.counts)}

    def load(self, state: Mapping[str, Any]) -> None:
        self.steps = self.loaded = state["steps"]
        self.since = time.monotonic()
        self.counts = Counter(state["counts"])
        self.sums = {name: value.to(self.accelerator.device) for name, value in state["sums"].items()}
