"""One training step against the paper's formulas, written out plainly."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torchvision.transforms.functional import gaussian_blur

from cyclegan import chance
from cyclegan.config import OptimizerSettings, TrainSettings
from cyclegan.losses import diff_augment
from cyclegan.training.ema import update_average
from cyclegan.training.image_pool import ImagePool
from cyclegan.training.networks import build_networks
from cyclegan.training.objectives import apply_to_each
from cyclegan.training.schedule import Length, lr_factor
from cyclegan.training.step import TrainingStep
from cyclegan.training.views import augmentation_draws

NAMES = ("G_AB", "G_BA", "D_A", "D_B")


def batch(n=2, size=32, seed=0):
    draw = torch.Generator().manual_seed(seed)
    real_a, real_b = (torch.rand(n, 3, size, size, generator=draw) * 2 - 1 for _ in "ab")
    return {"real_a": real_a, "real_b": real_b, "position": torch.arange(n) + n * seed}


def settings(**changes):
    small = {"generator": {"filters": 4, "blocks": 1}, "discriminator": {"filters": 4, "layers": 2}}
    return TrainSettings(**{"batch_size": 2, "size": 32, **small, **changes})


def gradients(network):
    return {name: p.grad.clone() for name, p in network.named_parameters()}


def plain_gradients(networks, b, w, adversarial):
    """The objective as the paper writes it, one forward a term, all of autograd's defaults."""
    G_AB, G_BA, D_A, D_B = (networks[name] for name in NAMES)
    real_a, real_b = b["real_a"], b["real_b"]
    fake_b, fake_a = G_AB(real_a), G_BA(real_b)
    to_real, discriminate = adversarial
    loss = w.lambda_adversarial_ab * to_real(D_B(fake_b)) + w.lambda_adversarial_ba * to_real(D_A(fake_a))
    loss = loss + w.lambda_cycle_a * (G_BA(fake_b) - real_a).abs().mean()
    loss = loss + w.lambda_cycle_b * (G_AB(fake_a) - real_b).abs().mean()
    loss = loss + w.lambda_identity_a * (G_BA(real_a) - real_a).abs().mean()
    loss = loss + w.lambda_identity_b * (G_AB(real_b) - real_b).abs().mean()
    names = ("G_AB", "G_BA")
    parameters = [p for name in names for p in networks[name].parameters()]
    found = dict(zip(parameters, torch.autograd.grad(loss, parameters), strict=True))
    for D, real, fake in ((D_A, real_a, fake_a), (D_B, real_b, fake_b)):
        judged = discriminate(D(real), D(fake.detach()))
        found |= dict(zip(D.parameters(), torch.autograd.grad(judged, list(D.parameters())), strict=True))
    return {name: {key: found[p] for key, p in networks[name].named_parameters()} for name in NAMES}


LSGAN = (
    lambda s: ((s - 1) ** 2).mean(),
    lambda r, f: 0.5 * (((r - 1) ** 2).mean() + (f**2).mean()),
)
VANILLA = (
    lambda s: F.binary_cross_entropy_with_logits(s, torch.ones_like(s)),
    lambda r, f: (
        0.5
        * (
            F.binary_cross_entropy_with_logits(r, torch.ones_like(r))
            + F.binary_cross_entropy_with_logits(f, torch.zeros_like(f))
        )
    ),
)


@pytest.mark.parametrize("norm", ["instance", "batch"])
@pytest.mark.parametrize(("name", "formula"), [("lsgan", LSGAN), ("vanilla", VANILLA)])
def test_gradients_are_the_papers(norm, name, formula):
    weights = {
        "adversarial": name,
        "lambda_adversarial_ab": 0.7,
        "lambda_cycle_a": 9,
        "lambda_cycle_b": 11,
        "lambda_identity_a": 3,
        "lambda_identity_b": 4,
    }
    chosen = settings(
        losses=weights,
        generator={"filters": 4, "blocks": 1, "norm": norm},
        discriminator={"filters": 4, "layers": 2, "norm": norm},
    )
    step = TrainingStep(chosen, Accelerator(cpu=True))
    expected = plain_gradients(copy.deepcopy(step.networks), batch(), chosen.losses, formula)
    step([batch()], 1.0)
    for network in NAMES:
        for key, gradient in gradients(step.networks[network]).items():
            torch.testing.assert_close(gradient, expected[network][key], atol=2e-6, rtol=1e-4)


def test_counterfeits_are_judged_as_fakes():
    """Blurred at the even position, with the other domain's detail at the odd one, by torchvision's blur."""
    step = TrainingStep(settings(losses={"lambda_edge_b": 0.3}), Accelerator(cpu=True))
    networks, b = copy.deepcopy(step.networks), batch()
    real_a, real_b = b["real_a"], b["real_b"]
    blurred = gaussian_blur(real_b, 7, 1.5)
    detailed = (real_b + real_a - gaussian_blur(real_a, 9, 2.0)).clamp(-1, 1)
    wrong = torch.stack([blurred[0], detailed[1]])
    losses = step([b], 1.0)
    D_A, D_B = networks["D_A"], networks["D_B"]
    edge = LSGAN[1](D_B(real_b), D_B(wrong))
    torch.testing.assert_close(losses["edge_b"], edge.detach())
    assert "edge_a" not in losses
    total = LSGAN[1](D_B(real_b), D_B(networks["G_AB"](real_a).detach())) + 0.3 * edge
    total = total + LSGAN[1](D_A(real_a), D_A(networks["G_BA"](real_b).detach()))
    for name, network in (("D_A", D_A), ("D_B", D_B)):
        found = [p.grad for p in step.networks[name].parameters()]
        expected = torch.autograd.grad(total, list(network.parameters()), retain_graph=True)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=2e-6, rtol=1e-4)


def test_no_queue_remembers_a_counterfeit():
    judge = {"name": "batch_statistics", "filters": 4, "layers": 2, "queue": 4}
    step = TrainingStep(
        settings(discriminator=judge, losses={"lambda_edge_a": 1.0, "lambda_edge_b": 1.0}),
        Accelerator(cpu=True),
    )
    step([batch()], 1.0)
    assert {kind: len(queue.features) for kind, queue in step.queues.items()} == dict.fromkeys(step.queues, 2)


def test_losses_are_reported_unweighted():
    step = TrainingStep(settings(), Accelerator(cpu=True))
    G_AB, G_BA, D_A, D_B = (copy.deepcopy(step.networks[name]) for name in NAMES)
    b = batch()
    losses = step([b], 1.0)
    with torch.no_grad():
        fake_b, fake_a = G_AB(b["real_a"]), G_BA(b["real_b"])
        expected = {
            "cycle_a": (G_BA(fake_b) - b["real_a"]).abs().mean(),
            "cycle_b": (G_AB(fake_a) - b["real_b"]).abs().mean(),
            "identity_a": (G_BA(b["real_a"]) - b["real_a"]).abs().mean(),
            "identity_b": (G_AB(b["real_b"]) - b["real_b"]).abs().mean(),
            "adversarial_ab": LSGAN[0](D_B(fake_b)),
            "adversarial_ba": LSGAN[0](D_A(fake_a)),
            "D_A": LSGAN[1](D_A(b["real_a"]), D_A(fake_a)),
            "D_B": LSGAN[1](D_B(b["real_b"]), D_B(fake_b)),
        }
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value, atol=1e-5, rtol=1e-4)


def test_the_update_is_adams():
    """After the first step Adam has moved every weight by lr, against the sign of its gradient."""
    step = TrainingStep(settings(optimizer={"lr": 1e-3, "lr_discriminator": 2e-3}), Accelerator(cpu=True))
    before = copy.deepcopy(step.networks)
    step([batch()], 0.5)
    for name, lr in (("G_AB", 5e-4), ("D_B", 1e-3)):
        for (_, old), new in zip(
            before[name].named_parameters(), step.networks[name].parameters(), strict=True
        ):
            clear = new.grad.abs() > 1e-5  # far above Adam's epsilon
            moved = (new - old)[clear]
            torch.testing.assert_close(moved, -lr * new.grad.sign()[clear], atol=2e-6, rtol=2e-3)


@pytest.mark.parametrize("dropout", [False, True])
def test_accumulated_parts_are_one_batch(dropout):
    generator = {"filters": 4, "blocks": 1, "dropout": dropout}
    whole = settings(batch_size=4, generator=generator)
    parts = settings(batch_size=4, generator=generator, gradient_accumulation=2)
    b = batch(4)
    halves = [{key: value[i : i + 2] for key, value in b.items()} for i in (0, 2)]
    found = []
    for chosen, given in ((whole, [b]), (parts, halves)):
        step = TrainingStep(chosen, Accelerator(cpu=True))
        losses = step(given, 1.0)
        found.append(({name: gradients(step.networks[name]) for name in NAMES}, losses))
    for name in NAMES:
        for key, gradient in found[0][0][name].items():
            torch.testing.assert_close(gradient, found[1][0][name][key], atol=1e-6, rtol=1e-4)
    for key, loss in found[0][1].items():
        torch.testing.assert_close(loss, found[1][1][key])


def test_discriminators_take_no_gradient_in_the_generator_step(monkeypatch):
    step = TrainingStep(settings(), Accelerator(cpu=True))
    seen = []
    plain = step.optimizer_G.step
    parameters = [p for name in ("D_A", "D_B") for p in step.networks[name].parameters()]
    monkeypatch.setattr(
        step.optimizer_G,
        "step",
        lambda *a: (seen.extend(p.grad is None and not p.requires_grad for p in parameters), plain(*a)),
    )
    step([batch()], 1.0)
    assert seen and all(seen)
    assert all(p.grad is not None for p in parameters)


def test_wgan_gp_pays_the_penalty():
    step = TrainingStep(settings(losses={"adversarial": "wgan-gp"}), Accelerator(cpu=True))
    losses = step([batch()], 1.0)
    assert losses["gradient_penalty_a"] > 0.5  # gradients of fresh networks are near 0: (0 - 1)^2
    free = TrainingStep(
        settings(losses={"adversarial": "wgan-gp", "lambda_gradient_penalty": 0}), Accelerator(cpu=True)
    )
    free([batch()], 1.0)
    with_penalty, without = gradients(step.networks["D_A"]), gradients(free.networks["D_A"])
    assert any(not torch.allclose(with_penalty[key], without[key], rtol=1e-3) for key in without)


def test_bf16_stays_near_fp32():
    """bf16 has 8 bits of mantissa: losses agree to about one part in a hundred."""
    found = []
    for precision in ("no", "bf16"):
        from accelerate.state import AcceleratorState

        AcceleratorState._reset_state(True)
        step = TrainingStep(settings(), Accelerator(cpu=True, mixed_precision=precision))
        found.append(step([batch()], 1.0))
        assert all(p.dtype == torch.float32 for p in step.networks["G_AB"].parameters())
    for name, loss in found[0].items():
        assert float(found[1][name]) == pytest.approx(float(loss), rel=0.03, abs=0.01)
    assert any(float(found[0][name]) != float(found[1][name]) for name in found[0])


def test_one_pass_for_two_inputs_is_exact_under_instance_norm():
    network = build_networks(settings())["G_AB"]
    x, y = batch()["real_a"], batch()["real_b"]
    for one, other in zip(apply_to_each(network, x, y), (network(x), network(y)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_first_weights_come_from_the_seed_alone():
    torch.manual_seed(1)
    one = build_networks(settings(seed=3))
    torch.manual_seed(2)
    same, other = build_networks(settings(seed=3)), build_networks(settings(seed=4))
    for name in NAMES:
        key, weight = next(iter(one[name].state_dict().items()))
        assert torch.equal(weight, same[name].state_dict()[key])
        assert not torch.equal(weight, other[name].state_dict()[key])
    assert not torch.equal(*(next(one[name].parameters()) for name in ("G_AB", "G_BA")))


# --- image pool


def image(number):
    return torch.full((1, 1, 1, 1), float(number))


def test_the_pool_fills_and_then_exchanges_half():
    pool = ImagePool(50, seed=0, name="A")
    assert [float(pool.query(image(i), [i])) for i in range(50)] == list(range(50))
    passed, ages = 0, []
    for i in range(50, 4050):
        out = float(pool.query(image(i), [i]))
        passed += out == i
        if out != i:
            ages.append(i - out)
    assert abs(passed / 4000 - 0.5) < 0.04  # five standard deviations
    # A slot is exchanged with probability 1/100 a step, so what comes out is 100 steps old on average.
    assert abs(np.mean(ages) - 100) < 15
    assert len(pool.images) == 50


def test_the_pool_depends_on_positions_not_on_batches():
    one, other = ImagePool(5, 0, "A"), ImagePool(5, 0, "A")
    stream = torch.arange(40.0).view(-1, 1, 1, 1)
    singles = torch.cat([one.query(stream[i : i + 1], [i]) for i in range(40)])
    batches = torch.cat([other.query(stream[i : i + 8], list(range(i, i + 8))) for i in range(0, 40, 8)])
    assert torch.equal(singles, batches)


def test_the_pool_keeps_fakes_that_are_written_over():
    """As a step's are by the next one with CUDA graphs."""
    one, other = ImagePool(5, 0, "A"), ImagePool(5, 0, "A")
    memory = image(0)
    for i in range(40):
        assert float(one.query(image(i), [i])) == float(other.query(memory.fill_(i), [i]))


def test_no_pool():
    assert float(ImagePool(0, 0, "A").query(image(3), [0])) == 3


# --- schedule, length, average


def test_processes_gather_fakes_for_a_pool_alone():
    """Of two processes this one is the second: the pool sees the fakes of both, in their order."""
    step = TrainingStep(settings(pool_size=4), Accelerator(cpu=True))
    gathered = []

    def gather(fakes):
        gathered.append(fakes)
        return torch.cat([fakes - 1, fakes])

    step.accelerator = SimpleNamespace(num_processes=2, process_index=1, gather=gather)
    fakes, positions = torch.cat([image(5), image(6)]), torch.tensor([6, 7])
    pool = ImagePool(4, 0, "A")
    assert torch.equal(step._pooled(pool, fakes, positions, 0), fakes)
    assert [float(kept.mean()) for kept in pool.images] == [4, 5, 5, 6]
    assert len(gathered) == 1
    assert step._pooled(ImagePool(0, 0, "A"), fakes, positions, 0) is fakes
    assert len(gathered) == 1


def test_the_papers_schedule():
    """200 epochs at 2e-4, the second hundred falling straight to 0 (CycleGAN §7.1)."""
    adam = OptimizerSettings()
    rates = {epoch: adam.lr * lr_factor(adam, epoch / 200) for epoch in (0, 99, 100, 150, 175, 200)}
    expected = {0: 2e-4, 99: 2e-4, 100: 2e-4, 150: 1e-4, 175: 5e-5, 200: 0}
    assert rates == pytest.approx(expected)


def test_the_cosine_is_pytorchs():
    adam = OptimizerSettings(schedule="cosine", decay_from=0)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], 1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    for step in range(50):
        assert lr_factor(adam, step / 50) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        reference.step()
    assert lr_factor(OptimizerSettings(schedule="constant"), 0.9) == 1


def test_the_first_limit_ends_the_run():
    length = Length(settings(steps=100, images=100, epochs=3), epoch=20)  # batch 2: 100, 50, 30 steps
    assert length.steps == 30
    assert (length.done(15, 1e9), length.done(30, 0)) == (0.5, 1.0)
    assert Length(settings(), epoch=20).steps == 200 * 20 / 2
    timed = Length(settings(minutes=10, steps=100), epoch=20)
    assert (timed.done(10, 5), timed.done(80, 5), timed.done(1, 10)) == (0.5, 0.8, 1.0)


def test_the_average_is_exponential():
    network, average = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(average.weight, 0.0)
    torch.nn.init.constant_(network.weight, 1.0)
    update_average(average, network, decay=0.9, step=10**9)
    update_average(average, network, decay=0.9, step=10**9)
    assert float(average.weight.detach()) == pytest.approx(1 - 0.9**2)
    update_average(average, network, decay=0.9, step=0)  # early: min(0.9, 1/10)
    assert float(average.weight.detach()) == pytest.approx(1 - 0.9**2 * 0.1)
    update_average(average, network, decay=0.0, step=10**9)
    assert float(average.weight.detach()) == 1.0


def test_r1_is_of_the_pictures_as_they_are(monkeypatch):
    """Through the augmentation, as its authors have it: colours that are stretched have longer gradients."""
    policy = ("color", "cutout")
    step = TrainingStep(settings(losses={"lambda_r1": 0.5, "diff_augment": policy}), Accelerator(cpu=True))
    judges, images = copy.deepcopy(step.discriminators), batch()
    losses = step([images], 1.0)
    for side, judge in judges.items():
        real = images[f"real_{side.lower()}"].clone().requires_grad_()
        draws = augmentation_draws(step.settings.seed, f"real_{side.lower()}", 0, [0, 1])
        scores = judge(diff_augment(real, draws, policy))
        (gradient,) = torch.autograd.grad(scores.mean((1, 2, 3)).sum(), real)
        (plain,) = torch.autograd.grad(judge(real).mean((1, 2, 3)).sum(), real)
        length, other = (g.square().sum((1, 2, 3)).mean() for g in (gradient, plain))
        assert float(losses[f"r1_{side.lower()}"]) == pytest.approx(float(length), rel=1e-3)
        assert float(length) != pytest.approx(float(other), rel=0.05)


def test_each_update_of_discriminators_looks_at_other_points_between():
    """Gulrajani et al. 2017, algorithm 1; the first is named as where there is one alone."""
    step = TrainingStep(settings(losses={"adversarial": "wgan-gp"}), Accelerator(cpu=True))
    drawn = [step._mix(torch.tensor([3, 4]), update).flatten().tolist() for update in (0, 0, 1, 2)]
    assert drawn[0] == drawn[1] and len({tuple(each) for each in drawn}) == 3
    seed = step.settings.seed
    assert drawn[0] == pytest.approx([chance.rng(seed, "penalty", p).random() for p in (3, 4)])
