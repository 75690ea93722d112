"""One step of training: all generators together, then all discriminators (CycleGAN §4)."""

import contextlib
import functools
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from cyclegan import chance
from cyclegan.config import SpeedSettings, TrainSettings
from cyclegan.errors import BadInput
from cyclegan.networks.shared_norm import share_batch_norm
from cyclegan.networks.trained import for_training
from cyclegan.training.cut import CutObjective
from cyclegan.training.cycle import CycleObjective
from cyclegan.training.feature_queue import FeatureQueue
from cyclegan.training.group import decided_by_main
from cyclegan.training.guard import Guard
from cyclegan.training.image_pool import ImagePool
from cyclegan.training.networks import build_networks
from cyclegan.training.objectives import Batch, DiscriminatorObjective, Judge, Losses
from cyclegan.training.perceptual import style_pictures
from cyclegan.training.pretraining import masks
from cyclegan.training.views import View, augmentation_draws

OBJECTIVES = {"cyclegan": CycleObjective, "cut": CutObjective, "fastcut": CutObjective}
FAR = 2**32  # steps by which positions move when training goes back (``Recovery``); no run is so long


class TrainingStep:
    """The networks, their optimizers and image pools, and the update that the method's paper describes.

    Which networks there are says the method: ``directions`` has the generators, each with its direction,
    ``discriminators`` the others by the domain that they judge.
    """

    def __init__(self, settings: TrainSettings, accelerator: Accelerator) -> None:
        self.settings, self.accelerator = settings, accelerator
        self.first_step = self.first_image = 0
        self.networks = placed_networks(settings, accelerator)
        self.directions = settings.directions
        self.discriminators = discriminators_of(self.networks)
        # Penalties need gradients of these networks' gradients.
        penalized = set(self.discriminators.values() if settings.losses.penalizes_gradients else ())
        if accelerator.num_processes > 1:
            for network in self.networks.values():
                share_batch_norm(network, accelerator.device, derived_twice=network in penalized)
        self.guard = Guard(accelerator, self.networks)
        self.pools = {side: ImagePool(settings.pooled, settings.seed, side) for side in self.discriminators}
        # Of images that discriminators judge.
        self.kinds = [f"{kind}_{side.lower()}" for side in self.discriminators for kind in ("real", "fake")]
        size = getattr(self.networks["D_B"], "queue", 0)
        self.queues = {kind: FeatureQueue(size) for kind in self.kinds} if size else {}
        adam = settings.optimizer
        # Torch gives none of what it has compiled.
        once = [network for network in self.networks.values() if network not in penalized]
        compile_networks(once, settings.speed, accelerator.device)
        generators, discriminators = build_objectives(self.networks, settings)
        self.perceptual = generators.perceptual
        self.lr_G = adam.lr
        self.lr_D = adam.lr_discriminator or adam.lr
        prepared = accelerator.prepare(
            generators,
            discriminators,
            make_optimizer(generators, self.lr_G, settings, accelerator),
            make_optimizer(discriminators, self.lr_D, settings, accelerator),
        )
        self.objective_G, self.objective_D, self.optimizer_G, self.optimizer_D = prepared

    def learn_styles(self, train: Mapping[str, Sequence[Path]]) -> None:
        """What the style loss leads to, where it is not known yet: of the training images by domain.

        All processes must call it; the main one computes.
        """
        if self.settings.losses.lambda_style == 0:
            return
        perceptual = self.perceptual

        def learned() -> dict[str, dict[str, Tensor]]:
            for side in self.discriminators:
                if side not in perceptual.styles:
                    perceptual.learn(side, style_pictures(self.settings, side, train[side]))
            return perceptual.state()

        perceptual.load(decided_by_main(self.accelerator, learned))

    def goes_on_from(self, step: int, images_seen: int) -> None:
        """Steps are counted from there on: what came before may have had batches of another size."""
        self.first_step, self.first_image = step, images_seen

    def __call__(self, parts: Sequence[Batch], lr_factor: float) -> Losses:
        """One update of all networks.

        Args:
            parts: the step's batch of this process, in ``gradient_accumulation`` parts.
            lr_factor: the schedule's share of the full learning rate, 0 to 1.

        Returns:
            Each loss by name, unweighted, averaged over this process' part of the batch. What was not
            finite, and so not applied, is in ``guard.wrong``.
        """
        if self.settings.speed.cuda_graphs:
            # One step is one round of the recorded kernels: the discriminators' pass needs the fakes of the
            # generators', which a new round would write over. What outlives a step is cloned (``ImagePool``);
            # no gradient does, lest the log read one whose memory is another's by then.
            for optimizer in (self.optimizer_G, self.optimizer_D):
                optimizer.zero_grad()
            torch.compiler.cudagraph_mark_step_begin()
        self.guard.begin()
        for group in self.optimizer_G.param_groups:
            group["lr"] = self.lr_G * lr_factor
        for group in self.optimizer_D.param_groups:
            group["lr"] = self.lr_D * lr_factor
        losses: Losses = {}
        shown = int(parts[0]["position"][0]) - self.first_image
        number = self.first_step + shown // self.settings.batch_size
        pretraining = number % FAR < self.settings.pretrain.steps
        if number % FAR == self.settings.pretrain.steps > 0:
            # The translation begins with the weights, not with Adam's memory of another task.
            self.optimizer_G.state.clear()

        # min over the generators; the discriminators judge and take no gradient.
        require_gradient(self.discriminators.values(), False)
        fakes = []
        self.optimizer_G.zero_grad()
        for batch, synchronize in self._parts(parts, self.objective_G):
            # Dropout draws from torch's own generator; every process, and every part, draws this step's mask.
            torch.manual_seed(chance.seed_for(self.settings.seed, "dropout", number) % 2**63)
            judges = {f"D_{side}": self._judge(side, batch) for side in self.discriminators}
            masked = self._masks(batch) if pretraining else ()
            with synchronize:
                total, found, made = self.objective_G(batch, judges, masked)
                self.accelerator.backward(total / len(parts))
            fakes.append({name: images.detach() for name, images in made.items()})
            _add(losses, found, len(parts))
        if not self.guard.allows("G", self.objective_G.parameters(), losses):
            return losses
        self.optimizer_G.step()
        self.guard.applied("G", self.optimizer_G)
        if pretraining:
            return losses

        # min over the discriminators, on reals and on fakes from the pools.
        require_gradient(self.discriminators.values(), True)
        for update in range(self.settings.optimizer.discriminator_updates):
            if not self.guard.wrong:
                self._update_discriminators(parts, fakes, update, losses)
        return losses

    def _update_discriminators(
        self, parts: Sequence[Batch], fakes: Sequence[Batch], update: int, losses: Losses
    ) -> None:
        self.optimizer_D.zero_grad()
        count = len(parts) * self.settings.optimizer.discriminator_updates
        for (batch, synchronize), made in zip(self._parts(parts, self.objective_D), fakes, strict=True):
            pooled = {}
            for side, pool in self.pools.items():
                name = f"fake_{side.lower()}"
                pooled[name] = self._pooled(pool, made[name], batch["position"], update)
            with synchronize:
                mix = self._mix(batch["position"], update)
                views = {kind: self._view(kind, batch["position"], update) for kind in self.kinds}
                total, found = self.objective_D(batch, pooled, mix, views)
                self.accelerator.backward(total / len(parts))
            _add(losses, found, count)
        allowed = self.guard.allows("D", self.objective_D.parameters(), losses)
        if allowed:
            self.optimizer_D.step()
            self.guard.applied("D", self.optimizer_D)
        is_last = update == self.settings.optimizer.discriminator_updates - 1
        for queue in self.queues.values():
            if allowed and is_last:  # earlier, the next update would compare images with themselves
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

    def _judge(self, side: str, batch: Batch) -> Judge:
        """A discriminator as the generators meet it: fakes in, scores out."""
        view = self._view(f"fake_{side.lower()}", batch["position"], None)
        network = self.discriminators[side]
        return lambda fakes: view.scores(network, view.seen(fakes))

    def _masks(self, batch: Batch) -> tuple[Tensor, ...]:
        settings = self.settings
        make = functools.partial(masks, settings.pretrain, settings.seed)
        places, device = batch["position"].tolist(), self.accelerator.device
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
        count, rank = self.accelerator.num_processes, self.accelerator.process_index
        if count == 1 or pool.size == 0:
            return pool.query(fakes, positions.tolist(), update)
        # Successive processes have successive positions (``PositionSampler``).
        first = int(positions[0]) - rank * len(positions)
        places = range(first, first + count * len(positions))
        return pool.query(self.accelerator.gather(fakes), places, update).chunk(count)[rank]

    def _mix(self, positions: Tensor, update: int) -> Tensor:
        """Drawn anew at each update (Gulrajani et al. 2017, algorithm 1)."""
        purpose = f"penalty {update}" if update else "penalty"
        draws = [chance.rng(self.settings.seed, purpose, p).random() for p in positions.tolist()]
        return torch.tensor(draws, device=self.accelerator.device, dtype=torch.float32).view(-1, 1, 1, 1)


def placed_networks(settings: TrainSettings, accelerator: Accelerator) -> dict[str, nn.Module]:
    """The networks where they are trained, with the layers that are fast there."""
    device, precision = accelerator.device, accelerator.mixed_precision
    fewer = settings.speed.fewer_products
    networks = build_networks(settings)
    return {name: for_training(net.to(device), device, precision, fewer) for name, net in networks.items()}


def compile_networks(networks: Iterable[nn.Module], speed: SpeedSettings, device: torch.device) -> None:
    """As the settings ask for.

    Raises:
        BadInput: CUDA graphs on another device, or no compiler.
    """
    if speed.cuda_graphs and device.type != "cuda":
        raise BadInput(
            f"speed.cuda_graphs: needs a CUDA GPU, and the networks are on {device.type}; leave it out"
        )
    if not speed.compile:
        return
    if device.type == "cpu" and not has_compiler():
        raise BadInput(
            "speed.compile: torch writes C++ for a CPU, and there is no compiler; install g++, name one with "
            "CXX, or leave it out"
        )
    # "reduce-overhead" is the name that torch has for CUDA graphs.
    mode = "reduce-overhead" if speed.cuda_graphs else None
    for network in networks:
        network.compile(mode=mode)


def has_compiler() -> bool:
    """Whether there is what torch writes its C++ for."""
    from torch._inductor import config  # a second's import, for those who compile

    names = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else (config.cpp.cxx,)
    return any(shutil.which(name) for name in names if name)


def make_optimizer(
    module: nn.Module, lr: float, settings: TrainSettings, accelerator: Accelerator
) -> torch.optim.Adam:
    """Adam with the settings' decays, fused where that is possible."""
    # Fused Adam would leave fp16's gradients scaled, and their norms are logged.
    fused = (accelerator.device.type in ("cuda", "cpu") and accelerator.scaler is None) or None
    betas = (settings.optimizer.beta1, settings.optimizer.beta2)
    return torch.optim.Adam(module.parameters(), lr, betas, fused=fused)


def discriminators_of(networks: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Those of ``build_networks`` that judge, by the domain that each judges."""
    return {name[-1]: network for name, network in networks.items() if name.startswith("D_")}


def build_objectives(
    networks: Mapping[str, nn.Module], settings: TrainSettings
) -> tuple[nn.Module, DiscriminatorObjective]:
    """What the generators minimize by the settings' method, and what the discriminators do."""
    generators = OBJECTIVES[settings.method](networks, settings)
    return generators, DiscriminatorObjective(discriminators_of(networks), settings.losses)


def require_gradient(networks: Iterable[nn.Module], required: bool) -> None:
    for network in networks:
        network.requires_grad_(required)


def _add(losses: Losses, found: Losses, parts: int) -> None:
    for name, loss in found.items():
        losses[name] = losses.get(name, 0) + loss.detach() / parts
