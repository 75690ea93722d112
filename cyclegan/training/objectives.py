"""What the generators and the discriminators minimize (CycleGAN §3 and §5.2, "identity")."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cyclegan.config import LossSettings
from cyclegan.errors import BadInput, nearest
from cyclegan.losses import ADVERSARIAL, AdversarialLoss, gradient_penalty, r1_penalty

Losses = dict[str, Tensor]


def adversarial_loss(name: str) -> AdversarialLoss:
    if name not in ADVERSARIAL:
        raise BadInput(
            f"losses.adversarial: there is no {name!r}{nearest(name, ADVERSARIAL)} "
            f"(known: {', '.join(ADVERSARIAL)})"
        )
    return ADVERSARIAL[name]


def apply_to_both(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """network(x), network(y): in one pass where images do not influence each other, else in two."""
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network(x), network(y)
    return network(torch.cat([x, y])).split([len(x), len(y)])


class GeneratorObjective(nn.Module):
    """The loss of G_AB and G_BA together; its parameters are theirs alone.

    It is one module with one forward, so that mixed precision covers all of it and
    DistributedDataParallel sees one forward and one backward a step. The discriminators come in as
    arguments: to wrap them here too would make it wait for gradients that they do not take.
    """

    def __init__(self, G_AB: nn.Module, G_BA: nn.Module, settings: LossSettings) -> None:
        super().__init__()
        self.G_AB, self.G_BA = G_AB, G_BA
        self.settings = settings
        self.adversarial = adversarial_loss(settings.adversarial).generator

    def forward(
        self, real_a: Tensor, real_b: Tensor, D_A: nn.Module, D_B: nn.Module
    ) -> tuple[Tensor, Losses, Tensor, Tensor]:
        """Losses of a batch.

        Args:
            real_a, real_b: (N, C, H, W) in [-1, 1].
            D_A, D_B: discriminators whose parameters require no gradient.

        Returns:
            The weighted sum, each loss by name before weighting, and ``fake_a``, ``fake_b``.
        """
        w = self.settings
        losses: Losses = {}
        if w.lambda_identity_b > 0:
            fake_b, idt_b = apply_to_both(self.G_AB, real_a, real_b)
            losses["identity_b"] = F.l1_loss(idt_b, real_b)
        else:
            fake_b = self.G_AB(real_a)
        if w.lambda_identity_a > 0:
            fake_a, idt_a = apply_to_both(self.G_BA, real_b, real_a)
            losses["identity_a"] = F.l1_loss(idt_a, real_a)
        else:
            fake_a = self.G_BA(real_b)
        rec_a, rec_b = self.G_BA(fake_b), self.G_AB(fake_a)
        losses["cycle_a"] = F.l1_loss(rec_a, real_a)
        losses["cycle_b"] = F.l1_loss(rec_b, real_b)
        losses["adversarial_ab"] = self.adversarial(D_B(fake_b))
        losses["adversarial_ba"] = self.adversarial(D_A(fake_a))
        total = torch.stack([getattr(w, f"lambda_{name}") * loss for name, loss in losses.items()]).sum()
        return total, losses, fake_a, fake_b


class DiscriminatorObjective(nn.Module):
    """The loss of D_A and D_B; one module for the same reasons as the generators'."""

    def __init__(self, D_A: nn.Module, D_B: nn.Module, settings: LossSettings) -> None:
        super().__init__()
        self.D_A, self.D_B = D_A, D_B
        self.lambda_penalty = settings.lambda_gradient_penalty if settings.adversarial == "wgan-gp" else 0.0
        self.lambda_r1 = settings.lambda_r1
        self.adversarial = adversarial_loss(settings.adversarial).discriminator

    def forward(
        self, real_a: Tensor, fake_a: Tensor, real_b: Tensor, fake_b: Tensor, mix: Tensor
    ) -> tuple[Tensor, Losses]:
        """Losses on reals and pooled fakes, all (N, C, H, W) in [-1, 1].

        ``mix`` (N, 1, 1, 1) in [0, 1] places the points where wgan-gp's gradient penalty is taken.
        """
        losses: Losses = {}
        total = torch.zeros((), device=real_a.device)
        for name, network, real, fake in (
            ("D_A", self.D_A, real_a, fake_a),
            ("D_B", self.D_B, real_b, fake_b),
        ):
            losses[name] = self.adversarial(*apply_to_both(network, real, fake))
            total = total + losses[name]
            side = name[-1].lower()
            if self.lambda_penalty > 0:
                losses[f"gradient_penalty_{side}"] = gradient_penalty(network, real, fake, mix)
                total = total + self.lambda_penalty * losses[f"gradient_penalty_{side}"]
            if self.lambda_r1 > 0:
                losses[f"r1_{side}"] = r1_penalty(network, real)
                total = total + self.lambda_r1 * losses[f"r1_{side}"]
        return total, losses
