"""A watch on the ways in which such GANs fail without a NaN; each is said once, with what to try."""

import math
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

import torch
from torch import Tensor

from cyclegan.config import TrainSettings

# A discriminator's loss while it cannot tell: scores of 1/2 for lsgan, of 0 for the others. wgan-gp's is
# a distance, which has no such point.
UNDECIDED = {"lsgan": 0.25, "vanilla": math.log(2), "hinge": 1.0}
WON = 0.03  # of the undecided loss; below it nearly every patch is told for what it is
LONG = 1000  # steps; young networks are sure of themselves for a while, and make the same of everything
ALIKE = 0.1  # of the spread of the target's pictures; what is left when all outputs are one picture
INVERTED = -0.5  # correlation of an image with its translation
FEWEST = 3  # images that say something of a spread


class Watch:
    """Looks at the losses of each line of the log and at the translations of each grid.

    Args:
        scales: how many of its scores a discriminator's loss is the sum of.
    """

    def __init__(self, settings: TrainSettings, warn: Callable[[str, str], None], scales: int = 1) -> None:
        self.settings, self.warn, self.scales = settings, warn, scales
        self.near_zero_since: dict[str, int | None] = {"D_A": None, "D_B": None}
        self.told: set[str] = set()

    def go_on(self, log: Iterable[Mapping[str, Any]], told: Set[str]) -> None:
        """Take up a run's watch: what was ``told`` is not said again, what its ``log`` has counts."""
        self.told |= told
        for line in log:
            self.losses(line, line["step"])

    def losses(self, means: Mapping[str, float], step: int) -> None:
        """Mean losses since the last line of the log, over all processes."""
        settings = self.settings
        undecided = UNDECIDED.get(settings.losses.adversarial)
        if undecided is None:
            return
        undecided *= self.scales
        for name, since in self.near_zero_since.items():
            if name not in means or not means[name] < WON * undecided:
                self.near_zero_since[name] = None
            elif since is None:
                self.near_zero_since[name] = max(0, step - settings.log_every)
            elif step - since >= LONG:
                rate = settings.optimizer.lr_discriminator or settings.optimizer.lr
                self._tell(
                    f"{name} wins",
                    f"{name} has won: its loss was below {WON * undecided:.2g} (undecided: {undecided:.2g}) "
                    f"for {step - since} steps, so that the generators learn little from it any more. Try "
                    f"--optimizer.lr-discriminator {rate / 4:g} (now {rate:g}) or --losses.lambda-r1 "
                    f"{settings.losses.lambda_r1 * 10 or 1:g} (now {settings.losses.lambda_r1:g})",
                )

    def outputs(self, direction: str, reals: Tensor, fakes: Tensor, targets: Tensor, step: int) -> None:
        """Held-out images and what became of them.

        Args:
            direction: ``AtoB`` or ``BtoA``.
            reals, fakes: (N, C, H, W) in [-1, 1], image by image.
            targets: (M, C, H, W), real images of the target domain.
        """
        if step < LONG:
            return
        generator, side = f"G_{direction.replace('to', '')}", direction[-1]
        if min(len(reals), len(targets)) >= FEWEST:
            share = spread(fakes) / max(spread(targets), 1e-6)
            if share < ALIKE and spread(reals) > 0:
                adversarial = getattr(self.settings.losses, f"lambda_adversarial_{generator[2:].lower()}")
                self._tell(
                    f"{generator} collapsed",
                    f"{generator} has collapsed: what it makes of {len(reals)} different images differs by "
                    f"{share:.0%} of what real images of {side} do. Try --losses.lambda-adversarial-"
                    f"{generator[2:].lower()} {adversarial / 2:g} (now {adversarial:g}) or a lower "
                    f"--optimizer.lr (now {self.settings.optimizer.lr:g}), begun anew",
                )
        correlation = similarity(reals, fakes)
        if correlation < INVERTED:
            self._tell(
                f"{generator} inverts",
                f"{generator} inverts colours: light and dark of images and translations correlate by "
                f"{correlation:.2f}. Unless {side} looks like that, try {self._stronger_identity(side)} or "
                "--generator.residual True, begun anew with another --seed",
            )

    def _stronger_identity(self, side: str) -> str:
        """What holds the colours of translations to ``side``, set to more."""
        if self.settings.method == "cut" and self.settings.nce.identity is not False:
            weight = self.settings.nce.weight or 1.0
            return f"--nce.weight {weight * 2:g} (now {weight:g})"
        if self.settings.method != "cyclegan":
            return "--nce.identity True"
        # The identity loss that holds G_AB's colours is the one on images of B (CycleGAN §5.2).
        name = f"lambda_identity_{side.lower()}"
        weight = getattr(self.settings.losses, name)
        return f"--losses.{name.replace('_', '-')} {weight * 2 or 5:g} (now {weight:g})"

    def _tell(self, what: str, words: str) -> None:
        if what not in self.told:
            self.told.add(what)
            self.warn(what, f"{words}.")


@torch.no_grad()
def spread(images: Tensor) -> float:
    """Standard deviation over (N, C, H, W) images of each pixel, averaged over pixels."""
    return float(images.float().std(dim=0).mean())


@torch.no_grad()
def similarity(images: Tensor, others: Tensor) -> float:
    """Pearson's correlation of the brightness of images and others, pixel by pixel, averaged over images."""
    one, other = (x.float().mean(dim=1).flatten(1) for x in (images, others))
    one, other = one - one.mean(dim=1, keepdim=True), other - other.mean(dim=1, keepdim=True)
    norms = (one.norm(dim=1) * other.norm(dim=1)).clamp_min(1e-6)
    return float(((one * other).sum(dim=1) / norms).mean())
