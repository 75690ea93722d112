"""Settings reach what they are for: a step's gradients, and a run's rates, beside what they should be.

The formulas have tests of their own; here a setting that is read and then left out would show.
"""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from test_cut import plain_places
from test_network_zoo import SMALL, awake
from test_step import LSGAN, batch, settings

from cyclegan import chance
from cyclegan.losses import diff_augment, gradient_penalty, r1_penalty, zero_centred_penalty
from cyclegan.training.objectives import style_code_loss
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


# --- renderings by reference


REFERENCE = {"name": "modnet", "style": "reference", "depth": 2, **SMALL}
WEIGHTS = {
    "lambda_adversarial_ab": 0.9,
    "lambda_adversarial_ba": 1.2,
    "lambda_cycle_a": 3.0,
    "lambda_cycle_b": 4.0,
    "lambda_identity_a": 1.5,
    "lambda_identity_b": 2.5,
    "lambda_style_code": 0.7,
}


def rendered(**changes):
    """As ``taken``, by generators that hear their references."""
    torch.manual_seed(SEED)
    chosen = settings(seed=SEED, generator=REFERENCE, batch_size=3, **changes)
    step = TrainingStep(chosen, Accelerator(cpu=True))
    for name in step.directions:
        network = awake(step.networks[name])
        torch.nn.init.normal_(network.last.weight, std=0.5)
    networks, b = copy.deepcopy(step.networks), batch(3)
    return step, networks, b, step([b], 1.0)


def style_code_distance(network, fake, reference):
    """|E(fake) - E(reference)|: what is wanted stands still, and so does E, which judges."""
    judge = copy.deepcopy(network.encoder).requires_grad_(False)
    return (judge(fake) - judge(reference)).abs().mean()


def hold_step(step, networks, losses, expected, total, names):
    """Losses as ``expected``, and of ``names`` the gradients of ``total``."""
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value.detach(), atol=1e-6, rtol=1e-4)
    for name in names:
        wanted = torch.autograd.grad(total, list(networks[name].parameters()), retain_graph=True)
        found = step.networks[name].named_parameters()
        for (key, one), other in zip(found, wanted, strict=True):
            assert (one.grad - other).norm() <= 1e-4 * other.norm() + 1e-6, (name, key)


@pytest.mark.parametrize("weight", [0.7, 0.0])
def test_each_picture_is_rendered_in_the_style_of_the_one_beside_it(weight):
    """In the cycle and for the identity as well; with a weight of 0 nothing is said of style codes."""
    step, networks, b, losses = rendered(losses={**WEIGHTS, "lambda_style_code": weight})
    G_AB, G_BA, D_A, D_B = (networks[name] for name in ("G_AB", "G_BA", "D_A", "D_B"))
    real_a, real_b = b["real_a"], b["real_b"]
    fake_b, fake_a = G_AB(real_a, real_b), G_BA(real_b, real_a)
    expected = {
        "adversarial_ab": LSGAN[0](D_B(fake_b)),
        "adversarial_ba": LSGAN[0](D_A(fake_a)),
        "cycle_a": F.l1_loss(G_BA(fake_b, real_a), real_a),
        "cycle_b": F.l1_loss(G_AB(fake_a, real_b), real_b),
        "identity_a": F.l1_loss(G_BA(real_a, real_a), real_a),
        "identity_b": F.l1_loss(G_AB(real_b, real_b), real_b),
    }
    total = sum(WEIGHTS[f"lambda_{name}"] * loss for name, loss in expected.items())
    if weight:
        expected["style_code_ab"] = style_code_distance(G_AB, fake_b, real_b)
        expected["style_code_ba"] = style_code_distance(G_BA, fake_a, real_a)
        total = total + weight * (expected["style_code_ab"] + expected["style_code_ba"])
    expected["D_A"] = LSGAN[1](D_A(real_a), D_A(fake_a.detach()))
    expected["D_B"] = LSGAN[1](D_B(real_b), D_B(fake_b.detach()))
    hold_step(step, networks, losses, expected, total, ("G_AB", "G_BA"))
    hold_step(step, networks, losses, expected, expected["D_A"] + expected["D_B"], ("D_A", "D_B"))


def plain_contrast(networks, chosen, purpose, source, made):
    """PatchNCE (CUT, eqs. 2 to 4) of the maps on the way into the generator, the first its input."""

    def maps(images):
        down = networks["G_AB"].down
        found, x = [images], down.first(images)
        for block, halve in zip(down.blocks, down.halve, strict=True):
            found.append(block(x))
            x = halve(found[-1])
        return [*found, x]

    total, of_layers = 0, list(zip(maps(made), maps(source), networks["F"].heads, strict=True))
    for layer, (queries, keys, head) in enumerate(of_layers):
        many = queries[0, 0].numel()
        draws = plain_places(SEED, purpose, layer, range(len(made)), many, chosen.nce.patches)
        for query, key, draw in zip(queries, keys, draws, strict=True):
            q, k = (F.normalize(head(x.flatten(1)[:, draw.tolist()].T), dim=1) for x in (query, key))
            loss = F.cross_entropy(q @ k.detach().T / chosen.nce.temperature, torch.arange(len(q)))
            total = total + loss / len(made)
    return total / len(of_layers)


def test_one_way_each_picture_is_rendered_in_the_style_of_the_one_beside_it():
    """With CUT's losses in place of the cycle."""
    step, networks, b, losses = rendered(
        method="cut",
        losses={"lambda_adversarial_ab": 0.9, "lambda_style_code": 0.7},
        nce={"patches": 20, "features": 16, "weight": 0.6},
    )
    G, D, real_a, real_b = networks["G_AB"], networks["D_B"], b["real_a"], b["real_b"]
    fake_b, idt_b = G(real_a, real_b), G(real_b, real_b)
    expected = {
        "adversarial_ab": LSGAN[0](D(fake_b)),
        "nce": plain_contrast(networks, step.settings, "patches", real_a, fake_b),
        "nce_identity": plain_contrast(networks, step.settings, "patches identity", real_b, idt_b),
        "style_code_ab": style_code_distance(G, fake_b, real_b),
        "D_B": LSGAN[1](D(real_b), D(fake_b.detach())),
    }
    total = 0.9 * expected["adversarial_ab"] + 0.7 * expected["style_code_ab"]
    total = total + 0.6 * (expected["nce"] + expected["nce_identity"]) / 2
    hold_step(step, networks, losses, expected, total, ("G_AB", "F"))
    hold_step(step, networks, losses, expected, expected["D_B"], ("D_B",))


def test_an_encoder_learns_from_no_distance_of_style_codes_that_it_judges():
    """By nothing but what the fake was made of; else one that gives all the same code would please."""
    network = awake(TrainingStep(settings(generator=REFERENCE), Accelerator(cpu=True)).networks["G_AB"])
    fake, reference = (images.requires_grad_() for images in (batch()["real_a"], batch()["real_b"]))
    loss = style_code_loss(network, fake, reference)
    torch.testing.assert_close(loss, style_code_distance(network, fake, reference))
    loss.backward()
    assert all(p.grad is None for p in network.parameters()) and reference.grad is None
    (wanted,) = torch.autograd.grad(style_code_distance(network, fake, reference.detach()), fake)
    torch.testing.assert_close(fake.grad, wanted)
    assert wanted.abs().max() > 0 and all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(("given", "weight"), [({}, 10.0), ({"lambda_gradient_penalty": 0.7}, 0.7)])
def test_a_critic_pays_its_penalty_times_its_weight(given, weight):
    """10 where nothing is said (Gulrajani et al. 2017, algorithm 1)."""
    step, networks, b, losses = taken(losses={"adversarial": "wgan-gp", **given})
    mix = torch.tensor([chance.rng(SEED, "penalty", p).random() for p in (0, 1)]).float().view(-1, 1, 1, 1)
    total = 0
    for side, generator, source in (("a", "G_BA", "real_b"), ("b", "G_AB", "real_a")):
        judge, real, fake = (
            networks[f"D_{side.upper()}"],
            b[f"real_{side}"],
            networks[generator](b[source]).detach(),
        )
        penalty = gradient_penalty(judge, real, fake, mix)
        torch.testing.assert_close(losses[f"gradient_penalty_{side}"], penalty.detach(), atol=1e-6, rtol=1e-3)
        total = total + judge(fake).mean() - judge(real).mean() + weight * penalty
    hold_gradients(step, networks, ("D_A", "D_B"), total)


def test_scores_of_all_scales_are_summed_on_both_sides():
    """pix2pixHD, eq. 3: for the generators, and for the discriminators."""
    judge = {"name": "multiscale", "filters": 4, "layers": 2, "scales": 2}
    step, networks, b, losses = taken(
        discriminator=judge,
        losses={"lambda_cycle_a": 0, "lambda_cycle_b": 0, "lambda_identity_a": 0, "lambda_identity_b": 0},
    )
    of_generators = of_discriminators = 0
    for side, way, source in (("a", "BA", "real_b"), ("b", "AB", "real_a")):
        D, fake = networks[f"D_{side.upper()}"], networks[f"G_{way}"](b[source])
        deceived = sum(LSGAN[0](scores) for scores in D(fake))
        judged = sum(LSGAN[1](*pair) for pair in zip(D(b[f"real_{side}"]), D(fake.detach()), strict=True))
        torch.testing.assert_close(losses[f"adversarial_{way.lower()}"], deceived.detach())
        torch.testing.assert_close(losses[f"D_{side.upper()}"], judged.detach())
        of_generators, of_discriminators = of_generators + deceived, of_discriminators + judged
    hold_gradients(step, networks, ("G_AB", "G_BA"), of_generators)
    hold_gradients(step, networks, ("D_A", "D_B"), of_discriminators)


@pytest.mark.parametrize("queue", [1, 4])
def test_a_queue_keeps_as_many_as_the_recipe_says(queue):
    judge = {"name": "batch_statistics", "filters": 4, "layers": 2, "queue": queue}
    step = TrainingStep(settings(discriminator=judge), Accelerator(cpu=True))
    for seed in range(3):
        step([batch(seed=seed)], 1.0)
    assert {len(kept.features) for kept in step.queues.values()} == {queue}


def test_the_translation_begins_without_adams_memory_of_the_completion():
    step = TrainingStep(settings(pretrain={"steps": 2, "patch": 8}), Accelerator(cpu=True))
    counts = []
    for seed in range(4):
        step([batch(seed=seed)], 1.0)
        counts.append({int(state["step"]) for state in step.optimizer_G.state.values()})
    assert counts == [{1}, {2}, {1}, {2}]


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_a_run_computes_at_the_precision_of_its_recipe(tiny, monkeypatch, precision):
    """What the generators make of a batch: autocast gives bf16."""
    found = set()
    call = TrainingStep.__call__

    def noted(self, parts, factor):
        convolution = next(m for m in self.networks["G_AB"].modules() if isinstance(m, torch.nn.Conv2d))
        with_hook = convolution.register_forward_hook(lambda _, inputs, output: found.add(output.dtype))
        losses = call(self, parts, factor)
        with_hook.remove()
        return losses

    monkeypatch.setattr(TrainingStep, "__call__", noted)
    train(tiny(steps=1, precision=precision))
    assert found == {torch.bfloat16 if precision == "bf16" else torch.float32}


def test_generators_and_penalties_meet_the_queue_as_well():
    """Fakes beside those of the step before, and points between beside what lies as far between both queues."""
    judge = {"name": "batch_statistics", "filters": 4, "layers": 2, "queue": 2}
    # So small a rate leaves the weights as they are.
    chosen = {"discriminator": judge, "optimizer": {"lr": 1e-12}, "pool_size": 0}
    step, networks, first, _ = taken(**chosen, losses={"lambda_zero_centred": 0.7})
    second = batch(seed=1)
    losses = step([second], 1.0)
    places = second["position"].tolist()
    mix = torch.tensor([chance.rng(SEED, "penalty", p).random() for p in places]).float().view(-1, 1, 1, 1)
    for side, way, source in (("a", "BA", "real_b"), ("b", "AB", "real_a")):
        D, G = networks[f"D_{side.upper()}"], networks[f"G_{way}"]
        with torch.no_grad():
            reals, fakes = (D.judge(x, None)[1] for x in (first[f"real_{side}"], G(first[source])))
            fake = G(second[source])
            deceived, alone = LSGAN[0](D.judge(fake, fakes)[0]), LSGAN[0](D(fake))
        torch.testing.assert_close(losses[f"adversarial_{way.lower()}"], deceived, atol=1e-6, rtol=1e-4)
        assert abs(deceived - alone) > 1e-4
        others = mix[:, None] * reals + (1 - mix[:, None]) * fakes
        between = second[f"real_{side}"], fake, mix
        penalty = zero_centred_penalty(lambda x, D=D, others=others: D.judge(x, others)[0], *between).detach()
        torch.testing.assert_close(losses[f"zero_centred_{side}"], penalty, atol=0, rtol=1e-3)
        assert float(zero_centred_penalty(D, *between).detach()) != pytest.approx(float(penalty), rel=2e-3)
