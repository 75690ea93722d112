"""What one generator minimizes that keeps each patch's content: CUT and FastCUT (arXiv 2007.15651)."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.losses import patch_nce, patches_at
from cyclegan.training.networks import patch_widths
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
from cyclegan.training.recompute import statistics_kept


class CutObjective(nn.Module):
    """The loss of G_AB and of F, the heads through which patches are compared (CUT §3, eq. 5).

    CUT weighs PatchNCE with 1, half of it on images of the target, which are to stay as they are (its
    identity loss). FastCUT weighs it with 10, without the identity, and shows half of the images mirrored.
    The features that are compared are the generator's own, on its way in. One module with one forward, as
    ``CycleObjective``.
    """

    def __init__(self, networks: Mapping[str, nn.Module], settings: TrainSettings) -> None:
        super().__init__()
        self.G_AB, self.F = networks["G_AB"], networks["F"]
        self.losses, self.nce, self.seed = settings.losses, settings.nce, settings.seed
        self.adversarial = adversarial_loss(settings.losses.adversarial).generator
        self.perceptual = Perceptual(settings.losses, next(self.G_AB.parameters()).device)
        self.layers = tuple(patch_widths(settings))
        fast, chosen = settings.method == "fastcut", settings.nce
        self.weight = chosen.weight if chosen.weight is not None else (10.0 if fast else 1.0)
        self.identity = chosen.identity if chosen.identity is not None else not fast
        self.flip = chosen.flip if chosen.flip is not None else fast

    def forward(
        self, batch: Batch, judges: Mapping[str, Judge], masks: tuple[Tensor, ...] = ()
    ) -> tuple[Tensor, Losses, Batch]:
        """Losses of a batch; arguments and results as of ``CycleObjective``, with ``position`` (N,) in
        the batch, ``D_B`` and ``fake_b`` alone."""
        if masks:
            return self._complete(batch, masks)
        real_a, real_b = batch["real_a"], batch["real_b"]
        places = batch["position"].tolist()
        mirrored = self._mirrored(places, real_a.device) if self.flip else None
        shown_a, shown_b = _flipped(real_a, mirrored), _flipped(real_b, mirrored)
        generator = in_the_style_of(self.G_AB, real_b)
        losses: Losses = {}
        if self.identity:
            fake_b, idt_b = apply_to_each(generator, shown_a, shown_b)
        else:
            fake_b = generator(shown_a)
        losses["adversarial_ab"] = deceive(self.adversarial, judges["D_B"](fake_b))
        total = self.losses.lambda_adversarial_ab * losses["adversarial_ab"]
        losses["nce"] = self._nce("patches", places, real_a, fake_b, mirrored)
        contrast = losses["nce"]
        if self.identity:
            losses["nce_identity"] = self._nce("patches identity", places, real_b, idt_b, mirrored)
            contrast = (contrast + losses["nce_identity"]) / 2
        total = total + self.weight * contrast
        if takes_reference(self.G_AB) and self.losses.lambda_style_code > 0:
            losses["style_code_ab"] = style_code_loss(self.G_AB, fake_b, real_b)
            total = total + self.losses.lambda_style_code * losses["style_code_ab"]
        more, found = self.perceptual("AtoB", shown_a, fake_b)
        return total + more, losses | found, {"fake_b": fake_b}

    def _nce(
        self, purpose: str, positions: list[int], source: Tensor, made: Tensor, mirrored: Tensor | None
    ) -> Tensor:
        """PatchNCE between images and what was made of them, its mean over the layers (eq. 4)."""
        drawn: list[Tensor] = []
        # Measured alone, not translated: batch norms are to know what G_AB will be given.
        with statistics_kept(self.G_AB):
            # The queries first: under autocast what is cast without a gradient would be kept for those with
            # one.
            queries = self.F(self._patches(purpose, positions, made, mirrored, drawn))
            with torch.no_grad():
                keys = self.F(self._patches(purpose, positions, source, None, drawn))
        found = [patch_nce(q, k, self.nce.temperature) for q, k in zip(queries, keys, strict=True)]
        return torch.stack(found).mean()

    def _patches(
        self,
        purpose: str,
        positions: list[int],
        images: Tensor,
        mirrored: Tensor | None,
        drawn: list[Tensor],
    ) -> list[Tensor]:
        """Of each layer (N, P, C), at the places that are ``drawn``; if none are, they are drawn here."""
        drawing, found = not drawn, []
        for layer, maps in enumerate(self.G_AB.encode(images)):
            if layer in self.layers:
                maps = _flipped(maps, mirrored)
                if drawing:
                    many = maps.shape[2] * maps.shape[3]
                    drawn.append(self._places(f"{purpose} {layer}", positions, many).to(maps.device))
                found.append(patches_at(maps, drawn[len(found)]))
            if layer == self.layers[-1]:
                break
        return found

    def _places(self, purpose: str, positions: list[int], many: int) -> Tensor:
        """(N, P) different places of ``many``, by the images' positions alone."""
        count = min(self.nce.patches, many)
        draws = [
            chance.rng(self.seed, purpose, position).choice(many, count, replace=False, shuffle=False)
            for position in positions
        ]
        return torch.from_numpy(np.stack(draws))

    def _mirrored(self, positions: list[int], device: torch.device) -> Tensor:
        """(N, 1, 1, 1): which images the generator sees mirrored (FastCUT's flip equivariance)."""
        draws = [chance.rng(self.seed, "equivariance", position).random() < 0.5 for position in positions]
        return torch.tensor(draws, device=device).view(-1, 1, 1, 1)

    def _complete(self, batch: Batch, masks: tuple[Tensor, ...]) -> tuple[Tensor, Losses, Batch]:
        loss, (_, fake_b) = complete(self.G_AB, batch, masks)
        # DistributedDataParallel waits for every gradient; the heads have none yet.
        none = torch.stack([p.sum() for p in self.F.parameters()]).sum() * 0
        return loss + none, {"completion_ab": loss}, {"fake_b": fake_b}


def _flipped(images: Tensor, mirrored: Tensor | None) -> Tensor:
    return images if mirrored is None else torch.where(mirrored, images.flip(3), images)
