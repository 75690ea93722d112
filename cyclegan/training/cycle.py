"""What two generators minimize that undo each other (CycleGAN §3 and §5.2, "identity")."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.config import LossSettings, TrainSettings
from cyclegan.training.objectives import (
    Batch,
    Judge,
    Losses,
    adversarial_loss,
    apply_to_each,
    complete,
    deceive,
    in_the_style_of,
    style_code_loss,
    takes_reference,
)
from cyclegan.training.perceptual import Perceptual
from cyclegan.training.recompute import Recomputed


class CycleObjective(nn.Module):
    """The loss of G_AB and G_BA together; its parameters are theirs alone.

    It is one module with one forward, so that mixed precision covers all of it and
    DistributedDataParallel sees one forward and one backward a step. The discriminators come in as
    arguments: to wrap them here too would make it wait for gradients that they do not take.
    """

    def __init__(self, networks: Mapping[str, nn.Module], settings: TrainSettings) -> None:
        super().__init__()
        self.G_AB, self.G_BA = networks["G_AB"], networks["G_BA"]
        self.settings, self.recompute = settings.losses, settings.speed.recompute
        self.adversarial = adversarial_loss(settings.losses.adversarial).generator
        self.perceptual = Perceptual(settings.losses, next(self.G_AB.parameters()).device)

    def forward(
        self, batch: Batch, judges: Mapping[str, Judge], masks: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Losses, Batch]:
        """Losses of a batch.

        Args:
            batch: ``real_a`` and ``real_b``, (N, C, H, W) in [-1, 1].
            judges: ``D_A`` and ``D_B``, discriminators whose parameters require no gradient.
            masks: of ``real_a`` and of ``real_b`` while pre-training, each (N, 1, H, W).

        Returns:
            The weighted sum, each loss by name before weighting, and ``fake_a`` and ``fake_b``.
        """
        if masks:
            return self._complete(batch, masks)
        w, real_a, real_b = self.settings, batch["real_a"], batch["real_b"]
        losses: Losses = {}
        G_AB, G_BA = in_the_style_of(self.G_AB, real_b), in_the_style_of(self.G_BA, real_a)
        if self.recompute:
            G_AB, G_BA = Recomputed(G_AB), Recomputed(G_BA)
        if w.lambda_identity_b > 0:
            fake_b, idt_b = apply_to_each(G_AB, real_a, real_b)
            losses["identity_b"] = F.l1_loss(idt_b, real_b)
        else:
            fake_b = G_AB(real_a)
        if w.lambda_identity_a > 0:
            fake_a, idt_a = apply_to_each(G_BA, real_b, real_a)
            losses["identity_a"] = F.l1_loss(idt_a, real_a)
        else:
            fake_a = G_BA(real_b)
        rec_a, rec_b = G_BA(fake_b), G_AB(fake_a)
        losses["cycle_a"] = F.l1_loss(rec_a, real_a)
        losses["cycle_b"] = F.l1_loss(rec_b, real_b)
        losses["adversarial_ab"] = deceive(self.adversarial, judges["D_B"](fake_b))
        losses["adversarial_ba"] = deceive(self.adversarial, judges["D_A"](fake_a))
        for name, network, fake, reference in (
            ("style_code_ab", self.G_AB, fake_b, real_b),
            ("style_code_ba", self.G_BA, fake_a, real_a),
        ):
            if takes_reference(network) and w.lambda_style_code > 0:
                losses[name] = style_code_loss(network, fake, reference)
        total = torch.stack([_weight(w, name) * loss for name, loss in losses.items()]).sum()
        for direction, source, fake in (("AtoB", real_a, fake_b), ("BtoA", real_b, fake_a)):
            more, found = self.perceptual(direction, source, fake)
            total = total + more
            losses |= found
        return total, losses, {"fake_a": fake_a, "fake_b": fake_b}

    def _complete(self, batch: Batch, masks: tuple[Tensor, ...]) -> tuple[Tensor, Losses, Batch]:
        """Both generators complete masked pictures, each on its own."""
        forth, (_, fake_b) = complete(self.G_AB, batch, masks, self.recompute)
        back, (fake_a, _) = complete(self.G_BA, batch, masks, self.recompute)
        losses = {"completion_ab": forth, "completion_ba": back}
        return forth + back, losses, {"fake_a": fake_a, "fake_b": fake_b}


def _weight(settings: LossSettings, name: str) -> float:
    # One for both directions.
    return (
        settings.lambda_style_code if name.startswith("style_code") else getattr(settings, f"lambda_{name}")
    )
