"""Learning rate as a pure function of how much of the run is done."""

import math

from cyclegan.config import OptimizerSettings, TrainSettings


def lr_factor(settings: OptimizerSettings, done: float) -> float:
    """Share of the full rate when the share ``done`` (0 to 1) of the run lies behind.

    Full until ``decay_from``, then to ``decay_to`` at the end: straight (CycleGAN §7.1, 100 epochs of 200)
    or along half a cosine (Loshchilov and Hutter 2017, eq. 5), which with ``decay_from`` 0 is PyTorch's
    CosineAnnealingLR.
    """
    if settings.schedule == "constant" or done <= settings.decay_from:
        return 1.0
    share = min(1.0, (done - settings.decay_from) / (1 - settings.decay_from))
    left = 1 - share if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * share))
    return settings.decay_to + (1 - settings.decay_to) * left


def warmup_factor(settings: OptimizerSettings, step: int) -> float:
    """Share of the rate in the step after ``step`` steps: straight up to 1 (Goyal et al. 2017, §2.2)."""
    return min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0


class Length:
    """When the run ends: the first of the limits that are set.

    If none is, after the papers' epochs: 200 for CycleGAN (§7.1) and, as its authors train it, FastCUT, 400
    for CUT.
    """

    def __init__(self, settings: TrainSettings, epoch: int) -> None:
        self.minutes = settings.minutes
        limits = [settings.images, settings.steps and settings.steps * settings.batch_size]
        epochs = settings.epochs
        if epochs is None and self.minutes is None and not any(limits):
            epochs = 400 if settings.method == "cut" else 200
        limits.append(epochs and math.ceil(epochs * epoch))
        images = min((limit for limit in limits if limit), default=None)
        # Whole steps: the last one is not cut short.
        self.steps = images and math.ceil(images / settings.batch_size)

    def done(self, step: int, minutes: float) -> float:
        """Share of the run that lies behind, 0 to 1, after ``step`` steps and ``minutes``."""
        by_steps = step / self.steps if self.steps else 0.0
        by_time = minutes / self.minutes if self.minutes else 0.0
        return min(1.0, max(by_steps, by_time))

    def after(self, first: int, minutes: float, done: float) -> float:
        """Share of what follows the ``first`` steps, when the share ``done`` of the whole lies behind.

        Args:
            minutes: how long those took.
        """
        begin = self.done(first, minutes)
        return max(0.0, (done - begin) / (1 - begin)) if begin < 1 else 0.0
