"""Settings reach what they are for: a step's gradients, and a run's rates, beside what they should be.

The formulas have tests of their own; here a setting that is read and then left out would show.
"""

import copy

import pytest
import torch
from accelerate import Accelerator
from test_step import LSGAN, batch, settings

from cyclegan import chance
from cyclegan.losses import diff_augment, r1_penalty, zero_centred_penalty
from cyclegan.training.step import TrainingStep
from cyclegan.training.train import train
from cyclegan.training.views import augmentation_draws

SEED = 3


def taken(**changes):
    """A step that was taken, the networks as they were before it, its images and its losses."""
    step = TrainingStep(settings(seed=SEED, **changes), Accelerator(cpu=True))
    networks, b = copy.deepcopy(step.networks), batch()
    return step, networks, b, step([b], 1.0)


def hold_gradients(step, networks, names, total):
    parameters = [p for name in names for p in networks[name].parameters()]
    expected = torch.autograd.grad(total, parameters, allow_unused=True)
    found = [p.grad for name in names for p in step.networks[name].parameters()]
    for one, other in zip(found, expected, strict=True):
        # The last bias has no part in a penalty.
        torch.testing.assert_close(
            one, torch.zeros_like(one) if other is None else other, atol=1e-5, rtol=1e-3
        )


def lsgan_of_discriminators(networks, real_a, real_b, fake_a, fake_b):
    total = LSGAN[1](networks["D_A"](real_a), networks["D_A"](fake_a))
    return total + LSGAN[1](networks["D_B"](real_b), networks["D_B"](fake_b))


@pytest.mark.parametrize("kind", ["r1", "zero_centred"])
def test_discriminators_pay_their_penalties(kind):
    step, networks, b, losses = taken(losses={f"lambda_{kind}": 0.7})
    real_a, real_b = b["real_a"], b["real_b"]
    fake_b, fake_a = (networks[g](x).detach() for g, x in (("G_AB", real_a), ("G_BA", real_b)))
    total = lsgan_of_discriminators(networks, real_a, real_b, fake_a, fake_b)
    mix = torch.tensor([chance.rng(SEED, "penalty", p).random() for p in (0, 1)]).float().view(-1, 1, 1, 1)
    for side, real, fake in (("a", real_a, fake_a), ("b", real_b, fake_b)):
        judge = networks[f"D_{side.upper()}"]
        arguments = (judge, real) if kind == "r1" else (judge, real, fake, mix)
        penalty = (r1_penalty if kind == "r1" else zero_centred_penalty)(*arguments)
        torch.testing.assert_close(losses[f"{kind}_{side}"], penalty.detach(), atol=1e-6, rtol=1e-3)
        total = total + 0.7 * penalty
    hold_gradients(step, networks, ("D_A", "D_B"), total)


def test_discriminators_see_everything_augmented_and_generators_learn_through_it():
    policy = ("color", "translation", "cutout")
    step, networks, b, losses = taken(losses={"diff_augment": policy})
    real_a, real_b = b["real_a"], b["real_b"]

    def seen(images, kind, update):
        return diff_augment(images, augmentation_draws(SEED, kind, update, [0, 1]), policy)

    fake_b, fake_a = networks["G_AB"](real_a), networks["G_BA"](real_b)
    for name, fake, side in (("ab", fake_b, "b"), ("ba", fake_a, "a")):
        # -1: the generators' look has draws of its own.
        score = networks[f"D_{side.upper()}"](seen(fake, f"fake_{side}", -1))
        torch.testing.assert_close(losses[f"adversarial_{name}"], LSGAN[0](score).detach())
    total = lsgan_of_discriminators(
        networks,
        seen(real_a, "real_a", 0),
        seen(real_b, "real_b", 0),
        seen(fake_a.detach(), "fake_a", 0),
        seen(fake_b.detach(), "fake_b", 0),
    )
    hold_gradients(step, networks, ("D_A", "D_B"), total)


def test_a_discriminator_with_a_queue_compares_with_the_step_before():
    judge = {"name": "batch_statistics", "filters": 4, "layers": 2, "queue": 2}
    # So small a rate leaves the weights as they are.
    step, networks, first, _ = taken(discriminator=judge, optimizer={"lr": 1e-12}, pool_size=0)
    second = batch(seed=1)
    losses = step([second], 1.0)
    with torch.no_grad():
        for side, generator, source in (("a", "G_BA", "real_b"), ("b", "G_AB", "real_a")):
            D, G = networks[f"D_{side.upper()}"], networks[generator]
            real, fake = (
                D.judge(now, D.judge(before, None)[1])[0]
                for before, now in (
                    (first[f"real_{side}"], second[f"real_{side}"]),
                    (G(first[source]), G(second[source])),
                )
            )
            alone = LSGAN[1](D(second[f"real_{side}"]), D(G(second[source])))
            found = losses[f"D_{side.upper()}"]
            torch.testing.assert_close(found, LSGAN[1](real, fake), atol=1e-6, rtol=1e-4)
            assert abs(found - alone) > 1e-4


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_of_a_run_is_its_schedules(tiny, monkeypatch, schedule):
    """With PyTorch's own schedulers; pre-training has the full rate, and each phase warms up."""
    first, steps, warmup, rate = 3, 11, 2, 4e-4
    found = []
    call = TrainingStep.__call__

    def noted(self, parts, factor):
        losses = call(self, parts, factor)
        found.append([o.param_groups[0]["lr"] for o in (self.optimizer_G, self.optimizer_D)])
        return losses

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    adam = {
        "lr": rate,
        "lr_discriminator": rate / 2,
        "schedule": schedule,
        "warmup_steps": warmup,
        "decay_from": 0,
    }
    train(tiny(steps=steps, pretrain={"steps": first, "patch": 8}, optimizer=adam))
    optimizer = torch.optim.Adam([torch.zeros(1, requires_grad=True)], rate)
    schedulers = torch.optim.lr_scheduler
    plain = {
        "cosine": lambda: schedulers.CosineAnnealingLR(optimizer, steps - first),
        "linear": lambda: schedulers.LinearLR(optimizer, 1.0, 0.0, steps - first),
        "constant": lambda: schedulers.ConstantLR(optimizer, 1.0),
    }[schedule]()
    expected = [rate / 2, rate, rate]
    for number in range(steps - first):
        expected.append(plain.get_last_lr()[0] * min(1, (number + 1) / warmup))
        optimizer.step()
        plain.step()
    assert [of_generators for of_generators, _ in found] == pytest.approx(expected)
    assert [of_discriminators for _, of_discriminators in found] == pytest.approx([e / 2 for e in expected])
