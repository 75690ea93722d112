"""Parts of what generators minimize, and what discriminators do (CycleGAN §3)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from cyclegan.config import LossSettings
from cyclegan.errors import BadInput, nearest
from cyclegan.losses import (
    ADVERSARIAL,
    AdversarialLoss,
    Scores,
    counterfeits,
    gradient_penalty,
    r1_penalty,
    scales,
    zero_centred_penalty,
)
from cyclegan.training.recompute import Recomputed
from cyclegan.training.views import PLAIN, View, between

Losses = dict[str, Tensor]
Batch = Mapping[str, Tensor]
Judge = Callable[[Tensor], Scores]


def adversarial_loss(name: str) -> AdversarialLoss:
    if name not in ADVERSARIAL:
        raise BadInput(
            f"losses.adversarial: there is no {name!r}{nearest(name, ADVERSARIAL)} "
            f"(known: {', '.join(ADVERSARIAL)})"
        )
    return ADVERSARIAL[name]


def apply_to_each(network: nn.Module, *batches: Tensor) -> tuple[Scores, ...]:
    """network(x), network(y), ...: in one pass where images do not influence each other, else in several."""
    if any(isinstance(module, _BatchNorm) for module in network.modules()):
        return tuple(network(batch) for batch in batches)
    lengths = [len(batch) for batch in batches]
    made = network(torch.cat(batches))
    if isinstance(made, tuple):  # several scales
        return tuple(zip(*(scores.split(lengths) for scores in made), strict=True))
    return made.split(lengths)


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


def deceive(adversarial: Callable[[Tensor], Tensor], scores: Scores) -> Tensor:
    """A generator's adversarial loss, summed over scales (pix2pixHD, eq. 3)."""
    return torch.stack([adversarial(each) for each in scales(scores)]).sum()


def style_code_loss(network: nn.Module, fake: Tensor, reference: Tensor) -> Tensor:
    """A fake has its reference's style code (StarGAN v2, Choi et al. 2020, eq. 2), or it is ignored."""
    wanted = network.style_of(reference).detach()
    # The encoder judges and takes no gradient: one that gives all the same code would please it.
    encoder = {key: value.detach() for key, value in network.encoder.named_parameters()}
    return F.l1_loss(functional_call(network.encoder, encoder, fake), wanted)


def complete(
    network: nn.Module, batch: Batch, masks: Sequence[Tensor], recompute: bool = False
) -> tuple[Tensor, Tensor]:
    """A generator completes masked pictures of both domains (UVCGAN §3.3).

    Args:
        masks: of ``real_a`` and of ``real_b``, each (N, 1, H, W).
        recompute: features anew for the backward pass, in place of keeping them.

    Returns:
        The loss, and what was made of A and of B, (2, N, C, H, W).
    """
    whole = torch.cat([batch["real_a"], batch["real_b"]])
    reference = (whole,) if takes_reference(network) else ()
    run = Recomputed(network) if recompute else network
    made = run(whole * torch.cat(tuple(masks)), *reference)
    return F.l1_loss(made, whole), made.unflatten(0, (2, -1))


class DiscriminatorObjective(nn.Module):
    """The loss of the discriminators; one module for the same reasons as the generators'.

    Args:
        discriminators: by the domain that each judges.
    """

    def __init__(self, discriminators: Mapping[str, nn.Module], settings: LossSettings) -> None:
        super().__init__()
        self.discriminators = nn.ModuleDict(discriminators)
        self.lambda_penalty = settings.gradient_penalty
        self.lambda_r1 = settings.lambda_r1
        self.lambda_zero_centred = settings.lambda_zero_centred
        self.lambda_edge = {"a": settings.lambda_edge_a, "b": settings.lambda_edge_b}
        self.adversarial = adversarial_loss(settings.adversarial).discriminator

    def forward(
        self, batch: Batch, fakes: Batch, mix: Tensor, views: Mapping[str, View] | None = None
    ) -> tuple[Tensor, Losses]:
        """Losses on reals and pooled fakes, all (N, C, H, W) in [-1, 1].

        Args:
            batch: with ``real_a`` and ``real_b``, and their ``position`` where there are counterfeits.
            fakes: ``fake_a`` where there is a D_A, ``fake_b``.
            mix: (N, 1, 1, 1) in [0, 1], places the points between them where gradients are penalized.
            views: by ``real_a``, ``fake_a``, ``real_b`` and ``fake_b``, how they are seen.
        """
        losses: Losses = {}
        total = torch.zeros((), device=mix.device)
        for side, network in ((name.lower(), network) for name, network in self.discriminators.items()):
            real, fake = batch[f"real_{side}"], fakes[f"fake_{side}"]
            view_real, view_fake = ((views or {}).get(f"{kind}_{side}", PLAIN) for kind in ("real", "fake"))
            real, fake = view_real.seen(real), view_fake.seen(fake)
            untrue = {f"D_{side.upper()}": (1.0, fake)}
            if self.lambda_edge[side] > 0:
                other = batch["real_b" if side == "a" else "real_a"]
                wrong = counterfeits(batch[f"real_{side}"], other, batch["position"])
                untrue[f"edge_{side}"] = self.lambda_edge[side], view_fake.seen(wrong)
            images = [images for _, images in untrue.values()]
            judged = self._discriminate(network, real, images, view_real, view_fake)
            for (name, (weight, _)), loss in zip(untrue.items(), judged, strict=True):
                losses[name] = loss
                total = total + weight * loss
            for name, weight, penalty in self._penalties(network, real, fake, mix, view_real, view_fake):
                losses[f"{name}_{side}"] = penalty
                total = total + weight * penalty
            if self.lambda_r1 > 0:
                penalty = self._r1(network, batch[f"real_{side}"], view_real)
                losses[f"r1_{side}"] = penalty
                total = total + self.lambda_r1 * penalty
        return total, losses

    def _discriminate(
        self, network: nn.Module, real: Tensor, untrue: Sequence[Tensor], view_real: View, view_fake: View
    ) -> list[Tensor]:
        """The loss beside each of ``untrue``: pooled fakes first, then counterfeits, if there are any."""
        if view_real.queue is None:
            of_real, *of_untrue = apply_to_each(network, real, *untrue)
        else:
            # A queue compares with fakes, and remembers no counterfeit.
            views = [view_fake, *[replace(view_fake, positions=None) for _ in untrue[1:]]]
            of_real = view_real.scores(network, real)
            of_untrue = [view.scores(network, images) for view, images in zip(views, untrue, strict=True)]
        found = []
        for of_these in of_untrue:
            pairs = zip(scales(of_real), scales(of_these), strict=True)
            found.append(torch.stack([self.adversarial(*pair) for pair in pairs]).sum())
        return found

    def _penalties(
        self, network: nn.Module, real: Tensor, fake: Tensor, mix: Tensor, view_real: View, view_fake: View
    ) -> Iterator[tuple[str, float, Tensor]]:
        """Name, weight and value of each between reals and fakes that the settings ask for."""
        amid = network
        if view_real.queue is not None:
            mixed = between(view_real, view_fake, mix)
            amid = lambda x: network.judge(x, mixed)[0]  # noqa: E731
        if self.lambda_penalty > 0:
            yield "gradient_penalty", self.lambda_penalty, gradient_penalty(amid, real, fake, mix)
        if self.lambda_zero_centred > 0:
            penalty = zero_centred_penalty(amid, real, fake, mix)
            yield "zero_centred", self.lambda_zero_centred, penalty

    def _r1(self, network: nn.Module, real: Tensor, view: View) -> Tensor:
        """Of the pictures as they are, through ``diff_augment``: as its authors' code has it."""
        once_more = replace(view, positions=None)  # a queue has remembered them
        return r1_penalty(lambda x: once_more.scores(network, once_more.seen(x)), real)
