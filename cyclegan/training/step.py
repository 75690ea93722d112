"""One step of CycleGAN: both generators together, then both discriminators (CycleGAN §4)."""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.losses import Scores
from cyclegan.networks.trained import for_training
from cyclegan.training.feature_queue import FeatureQueue
from cyclegan.training.guard import Guard
from cyclegan.training.image_pool import ImagePool
from cyclegan.training.networks import build_networks
from cyclegan.training.objectives import DiscriminatorObjective, GeneratorObjective, Losses
from cyclegan.training.pretraining import masks
from cyclegan.training.views import View, augmentation_draws

KINDS = ("real_a", "fake_a", "real_b", "fake_b")  # of images that discriminators judge
FAR = 2**32  # steps by which positions move when training goes back (``Recovery``); no run is so long
Batch = Mapping[str, Tensor]


class CycleGANStep:
    """The four networks, their optimizers and image pools, and the update that the paper describes."""

    def __init__(self, settings: TrainSettings, accelerator: Accelerator) -> None:
        self.settings, self.accelerator = settings, accelerator
        networks = build_networks(settings)
        device = accelerator.device
        self.networks = {name: for_training(net.to(device), device) for name, net in networks.items()}
        self.guard = Guard(accelerator, self.networks)
        self.pool_a = ImagePool(settings.pool_size, settings.seed, "A")
        self.pool_b = ImagePool(settings.pool_size, settings.seed, "B")
        size = getattr(networks["D_A"], "queue", 0)
        self.queues = {kind: FeatureQueue(size) for kind in KINDS} if size else {}
        adam = settings.optimizer
        betas = (adam.beta1, adam.beta2)
        if settings.speed.compile:
            for network in networks.values():
                network.compile()
        recompute = settings.speed.recompute
        generators = GeneratorObjective(networks["G_AB"], networks["G_BA"], settings.losses, recompute)
        discriminators = DiscriminatorObjective(networks["D_A"], networks["D_B"], settings.losses)
        self.lr_G = adam.lr
        self.lr_D = adam.lr_discriminator or adam.lr
        # Fused Adam would leave fp16's gradients scaled, and their norms are logged.
        fused = (device.type == "cuda" and accelerator.scaler is None) or None
        prepared = accelerator.prepare(
            generators,
            discriminators,
            torch.optim.Adam(generators.parameters(), self.lr_G, betas, fused=fused),
            torch.optim.Adam(discriminators.parameters(), self.lr_D, betas, fused=fused),
        )
        self.generators, self.discriminators, self.optimizer_G, self.optimizer_D = prepared

    def __call__(self, parts: Sequence[Batch], lr_factor: float) -> Losses:
        """One update of all four networks.

        Args:
            parts: the step's batch of this process, in ``gradient_accumulation`` parts.
            lr_factor: the schedule's share of the full learning rate, 0 to 1.

        Returns:
            Each loss by name, unweighted, averaged over this process' part of the batch. What was not
            finite, and so not applied, is in ``guard.wrong``.
        """
        self.guard.begin()
        for group in self.optimizer_G.param_groups:
            group["lr"] = self.lr_G * lr_factor
        for group in self.optimizer_D.param_groups:
            group["lr"] = self.lr_D * lr_factor
        losses: Losses = {}
        number = int(parts[0]["position"][0]) // self.settings.batch_size
        pretraining = number % FAR < self.settings.pretrain.steps
        if number % FAR == self.settings.pretrain.steps > 0:
            # The translation begins with the weights, not with Adam's memory of another task.
            self.optimizer_G.state.clear()

        # min over G_AB, G_BA; the discriminators judge and take no gradient.
        D_A, D_B = self.networks["D_A"], self.networks["D_B"]
        require_gradient((D_A, D_B), False)
        fakes = []
        self.optimizer_G.zero_grad()
        for batch, synchronize in self._parts(parts, self.generators):
            # Dropout draws from torch's own generator; every process, and every part, draws this step's mask.
            torch.manual_seed(chance.seed_for(self.settings.seed, "dropout", number) % 2**63)
            judges = [self._judge(name, batch) for name in ("D_A", "D_B")]
            masked = self._masks(batch) if pretraining else ()
            with synchronize:
                total, found, fake_a, fake_b = self.generators(
                    batch["real_a"], batch["real_b"], *judges, masked
                )
                self.accelerator.backward(total / len(parts))
            fakes.append((fake_a.detach(), fake_b.detach()))
            _add(losses, found, len(parts))
        if not self.guard.allows("G", self.generators.parameters(), losses):
            return losses
        self.optimizer_G.step()
        self.guard.applied("G", self.optimizer_G)
        if pretraining:
            return losses

        # min over D_A, D_B, on reals and on fakes from the pools.
        require_gradient((D_A, D_B), True)
        for update in range(self.settings.optimizer.discriminator_updates):
            if not self.guard.wrong:
                self._update_discriminators(parts, fakes, update, losses)
        return losses

    def _update_discriminators(
        self, parts: Sequence[Batch], fakes: Sequence[tuple[Tensor, Tensor]], update: int, losses: Losses
    ) -> None:
        self.optimizer_D.zero_grad()
        count = len(parts) * self.settings.optimizer.discriminator_updates
        for (batch, synchronize), (fake_a, fake_b) in zip(
            self._parts(parts, self.discriminators), fakes, strict=True
        ):
            fake_a = self._pooled(self.pool_a, fake_a, batch["position"], update)
            fake_b = self._pooled(self.pool_b, fake_b, batch["position"], update)
            with synchronize:
                mix = self._mix(batch["position"])
                views = {kind: self._view(kind, batch["position"], update) for kind in KINDS}
                total, found = self.discriminators(
                    batch["real_a"], fake_a, batch["real_b"], fake_b, mix, views
                )
                self.accelerator.backward(total / len(parts))
            _add(losses, found, count)
        allowed = self.guard.allows("D", self.discriminators.parameters(), losses)
        if allowed:
            self.optimizer_D.step()
            self.guard.applied("D", self.optimizer_D)
        for queue in self.queues.values():
            if allowed:
                queue.commit(self.accelerator.gather)
            else:
                queue.drop()

    def _view(self, kind: str, positions: Tensor, update: int | None) -> View:
        """How a discriminator sees images; ``update`` is None where the generators look on, and learn."""
        policy, draws = self.settings.losses.diff_augment, []
        if policy:
            draws = augmentation_draws(
                self.settings.seed, kind, -1 if update is None else update, positions.tolist()
            )
        return View(policy, draws, self.queues.get(kind), None if update is None else positions)

    def _judge(self, name: str, batch: Batch) -> Callable[[Tensor], Scores]:
        """A discriminator as the generators meet it: fakes in, scores out."""
        view = self._view(f"fake_{name[-1].lower()}", batch["position"], None)
        network = self.networks[name]
        return lambda fakes: view.scores(network, view.seen(fakes))

    def _masks(self, batch: Batch) -> tuple[Tensor, ...]:
        settings = self.settings
        make = functools.partial(masks, settings.pretrain, settings.seed)
        places, device = batch["position"].tolist(), batch["position"].device
        return tuple(make(side, places, settings.size).to(device) for side in "AB")

    def _parts(self, parts: Sequence[Batch], model: nn.Module):
        """Each part, with a context in which processes exchange gradients after the last one only."""
        for number, batch in enumerate(parts, 1):
            last = number == len(parts)
            yield batch, contextlib.nullcontext() if last else self.accelerator.no_sync(model)

    def _pooled(self, pool: ImagePool, fakes: Tensor, positions: Tensor, update: int) -> Tensor:
        """This process' share of what the pool gives for the fakes of all processes.

        Every process keeps the same pool, so that a step does not depend on how many they are.
        """
        if self.accelerator.num_processes == 1:
            return pool.query(fakes, positions.tolist(), update)
        gather = self.accelerator.gather
        everyone = pool.query(gather(fakes), gather(positions).tolist(), update)
        return everyone.chunk(self.accelerator.num_processes)[self.accelerator.process_index]

    def _mix(self, positions: Tensor) -> Tensor:
        draws = [chance.rng(self.settings.seed, "penalty", p).random() for p in positions.tolist()]
        return torch.tensor(draws, device=positions.device, dtype=torch.float32).view(-1, 1, 1, 1)


def require_gradient(networks: Sequence[nn.Module], required: bool) -> None:
    for network in networks:
        network.requires_grad_(required)


def _add(losses: Losses, found: Losses, parts: int) -> None:
    for name, loss in found.items():
        losses[name] = losses.get(name, 0) + loss.detach() / parts
