"""What the generators and the discriminators minimize (CycleGAN §3 and §5.2, "identity")."""

import contextlib
from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from cyclegan.config import LossSettings
from cyclegan.errors import BadInput, nearest
from cyclegan.losses import (
    ADVERSARIAL,
    AdversarialLoss,
    Scores,
    gradient_penalty,
    r1_penalty,
    scales,
    zero_centred_penalty,
)
from cyclegan.training.views import PLAIN, View, between

Losses = dict[str, Tensor]
Judge = Callable[[Tensor], Scores]


def adversarial_loss(name: str) -> AdversarialLoss:
    if name not in ADVERSARIAL:
        raise BadInput(
            f"losses.adversarial: there is no {name!r}{nearest(name, ADVERSARIAL)} "
            f"(known: {', '.join(ADVERSARIAL)})"
        )
    return ADVERSARIAL[name]


def apply_to_both(network: nn.Module, x: Tensor, y: Tensor) -> tuple[Scores, Scores]:
    """network(x), network(y): in one pass where images do not influence each other, else in two."""
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        return network(x), network(y)
    both = network(torch.cat([x, y]))
    if isinstance(both, tuple):  # several scales
        first, second = zip(*(scores.split([len(x), len(y)]) for scores in both), strict=True)
        return first, second
    return both.split([len(x), len(y)])


def takes_reference(network: nn.Module) -> bool:
    """Whether a generator is given a picture of its target domain beside each image."""
    return getattr(network, "takes_reference", False)


def in_the_style_of(network: nn.Module, reference: Tensor) -> nn.Module:
    """The generator with the references of a batch, where it takes some; else as it is."""
    return _Styled(network, reference) if takes_reference(network) else network


class _Styled(nn.Module):
    """A generator of images alone; where two batches come as one, each has all the references."""

    def __init__(self, network: nn.Module, reference: Tensor) -> None:
        super().__init__()
        self.network, self.reference = network, reference

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, self.reference.repeat(len(images) // len(self.reference), 1, 1, 1))


class _Recomputed(nn.Module):
    """A generator that keeps its input alone for the backward pass, and then goes forward again.

    Chen et al., "Training deep nets with sublinear memory cost" (2016). Of the passes of a step only one at
    a time has its features in memory.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *images: Tensor) -> Tensor:
        return checkpoint(self.network, *images, use_reentrant=False, context_fn=self._contexts)

    def _contexts(self) -> tuple[contextlib.AbstractContextManager, contextlib.AbstractContextManager]:
        return contextlib.nullcontext(), self._statistics_once()

    @contextlib.contextmanager
    def _statistics_once(self) -> Iterator[None]:
        """Batch norms have counted these images in the first pass."""
        kept = [buffer.clone() for buffer in self.network.buffers()]
        try:
            yield
        finally:
            for buffer, before in zip(self.network.buffers(), kept, strict=True):
                buffer.data.copy_(before)  # unseen by autograd, which may hold the buffer for another pass


class GeneratorObjective(nn.Module):
    """The loss of G_AB and G_BA together; its parameters are theirs alone.

    It is one module with one forward, so that mixed precision covers all of it and
    DistributedDataParallel sees one forward and one backward a step. The discriminators come in as
    arguments: to wrap them here too would make it wait for gradients that they do not take.
    """

    def __init__(
        self, G_AB: nn.Module, G_BA: nn.Module, settings: LossSettings, recompute: bool = False
    ) -> None:
        super().__init__()
        self.G_AB, self.G_BA = G_AB, G_BA
        self.settings, self.recompute = settings, recompute
        self.adversarial = adversarial_loss(settings.adversarial).generator

    def forward(
        self, real_a: Tensor, real_b: Tensor, D_A: Judge, D_B: Judge, masks: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Losses, Tensor, Tensor]:
        """Losses of a batch.

        Args:
            real_a, real_b: (N, C, H, W) in [-1, 1].
            D_A, D_B: discriminators whose parameters require no gradient.
            masks: of ``real_a`` and of ``real_b`` while pre-training, each (N, 1, H, W).

        Returns:
            The weighted sum, each loss by name before weighting, and ``fake_a``, ``fake_b``.
        """
        if masks:
            return self._complete(real_a, real_b, *masks)
        w = self.settings
        losses: Losses = {}
        G_AB, G_BA = in_the_style_of(self.G_AB, real_b), in_the_style_of(self.G_BA, real_a)
        if self.recompute:
            G_AB, G_BA = _Recomputed(G_AB), _Recomputed(G_BA)
        if w.lambda_identity_b > 0:
            fake_b, idt_b = apply_to_both(G_AB, real_a, real_b)
            losses["identity_b"] = F.l1_loss(idt_b, real_b)
        else:
            fake_b = G_AB(real_a)
        if w.lambda_identity_a > 0:
            fake_a, idt_a = apply_to_both(G_BA, real_b, real_a)
            losses["identity_a"] = F.l1_loss(idt_a, real_a)
        else:
            fake_a = G_BA(real_b)
        rec_a, rec_b = G_BA(fake_b), G_AB(fake_a)
        losses["cycle_a"] = F.l1_loss(rec_a, real_a)
        losses["cycle_b"] = F.l1_loss(rec_b, real_b)
        losses["adversarial_ab"] = self._deceive(D_B(fake_b))
        losses["adversarial_ba"] = self._deceive(D_A(fake_a))
        losses.update(self._style_codes(real_a, fake_a, real_b, fake_b))
        total = torch.stack([_weight(w, name) * loss for name, loss in losses.items()]).sum()
        return total, losses, fake_a, fake_b

    def _deceive(self, scores: Scores) -> Tensor:
        # Summed over scales (pix2pixHD, eq. 3).
        return torch.stack([self.adversarial(each) for each in scales(scores)]).sum()

    def _style_codes(self, real_a: Tensor, fake_a: Tensor, real_b: Tensor, fake_b: Tensor) -> Losses:
        """A fake has its reference's style code (StarGAN v2, Choi et al. 2020, eq. 2), or it is ignored."""
        losses: Losses = {}
        for name, network, fake, reference in (
            ("style_code_ab", self.G_AB, fake_b, real_b),
            ("style_code_ba", self.G_BA, fake_a, real_a),
        ):
            if takes_reference(network) and self.settings.lambda_style_code > 0:
                wanted = network.style_of(reference).detach()
                # The encoder judges and takes no gradient: one that gives all the same code would please it.
                encoder = {key: value.detach() for key, value in network.encoder.named_parameters()}
                losses[name] = F.l1_loss(functional_call(network.encoder, encoder, fake), wanted)
        return losses

    def _complete(
        self, real_a: Tensor, real_b: Tensor, mask_a: Tensor, mask_b: Tensor
    ) -> tuple[Tensor, Losses, Tensor, Tensor]:
        """Both generators complete masked pictures of both domains (UVCGAN §3.3)."""
        whole = torch.cat([real_a, real_b])
        masked = whole * torch.cat([mask_a, mask_b])
        losses, made = {}, []
        for name, network in (("completion_ab", self.G_AB), ("completion_ba", self.G_BA)):
            reference = (whole,) if takes_reference(network) else ()
            complete = _Recomputed(network) if self.recompute else network
            made.append(complete(masked, *reference))
            losses[name] = F.l1_loss(made[-1], whole)
        total = torch.stack(list(losses.values())).sum()
        return total, losses, made[1][: len(real_a)], made[0][len(real_a) :]


def _weight(settings: LossSettings, name: str) -> float:
    # One for both directions.
    return (
        settings.lambda_style_code if name.startswith("style_code") else getattr(settings, f"lambda_{name}")
    )


class DiscriminatorObjective(nn.Module):
    """The loss of D_A and D_B; one module for the same reasons as the generators'."""

    def __init__(self, D_A: nn.Module, D_B: nn.Module, settings: LossSettings) -> None:
        super().__init__()
        self.D_A, self.D_B = D_A, D_B
        self.lambda_penalty = settings.lambda_gradient_penalty if settings.adversarial == "wgan-gp" else 0.0
        self.lambda_r1 = settings.lambda_r1
        self.lambda_zero_centred = settings.lambda_zero_centred
        self.adversarial = adversarial_loss(settings.adversarial).discriminator

    def forward(
        self,
        real_a: Tensor,
        fake_a: Tensor,
        real_b: Tensor,
        fake_b: Tensor,
        mix: Tensor,
        views: Mapping[str, View] | None = None,
    ) -> tuple[Tensor, Losses]:
        """Losses on reals and pooled fakes, all (N, C, H, W) in [-1, 1].

        ``mix`` (N, 1, 1, 1) in [0, 1] places the points between them where gradients are penalized;
        ``views`` by ``real_a``, ``fake_a``, ``real_b`` and ``fake_b`` say how they are seen.
        """
        losses: Losses = {}
        total = torch.zeros((), device=real_a.device)
        for side, network, real, fake in (
            ("a", self.D_A, real_a, fake_a),
            ("b", self.D_B, real_b, fake_b),
        ):
            view_real, view_fake = ((views or {}).get(f"{kind}_{side}", PLAIN) for kind in ("real", "fake"))
            real, fake = view_real.seen(real), view_fake.seen(fake)
            losses[f"D_{side.upper()}"] = self._discriminate(network, real, fake, view_real, view_fake)
            total = total + losses[f"D_{side.upper()}"]
            for name, weight, penalty in self._penalties(network, real, fake, mix, view_real, view_fake):
                losses[f"{name}_{side}"] = penalty
                total = total + weight * penalty
        return total, losses

    def _discriminate(
        self, network: nn.Module, real: Tensor, fake: Tensor, view_real: View, view_fake: View
    ) -> Tensor:
        if view_real.queue is None:
            judged = apply_to_both(network, real, fake)
        else:
            judged = view_real.scores(network, real), view_fake.scores(network, fake)
        pairs = zip(*(scales(scores) for scores in judged), strict=True)
        return torch.stack([self.adversarial(*pair) for pair in pairs]).sum()

    def _penalties(
        self, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor, view_real: View, view_fake: View
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of each that the settings ask for."""
        at_real, amid = network, network
        if view_real.queue is not None:
            others, mixed = view_real.queue.features, between(view_real, view_fake, mix)
            at_real = lambda x: network.judge(x, others)[0]  # noqa: E731
            amid = lambda x: network.judge(x, mixed)[0]  # noqa: E731
        if self.lambda_penalty > 0:
            yield "gradient_penalty", self.lambda_penalty, gradient_penalty(amid, real, fake, mix)
        if self.lambda_zero_centred > 0:
            penalty = zero_centred_penalty(amid, real, fake, mix)
            yield "zero_centred", self.lambda_zero_centred, penalty
        if self.lambda_r1 > 0:
            yield "r1", self.lambda_r1, r1_penalty(at_real, real)
