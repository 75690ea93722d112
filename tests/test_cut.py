"""One-sided translation: PatchNCE and whole steps against plain transcriptions; runs of one direction."""

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from test_network_zoo import ZOO, awake
from test_step import LSGAN, batch, gradients, settings

from cyclegan import chance
from cyclegan.artifacts import load_generator, read_config
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.evaluation.compare import compare_runs
from cyclegan.losses import patch_nce
from cyclegan.networks import GENERATORS, build
from cyclegan.networks.layers import initialize
from cyclegan.networks.projection import PatchProjection
from cyclegan.reporting.comparison import tables
from cyclegan.reporting.grids import read_grid
from cyclegan.training import loop
from cyclegan.training.networks import build_networks, patch_widths
from cyclegan.training.schedule import Length
from cyclegan.training.step import TrainingStep
from cyclegan.training.train import train

SMALL = {"nce": {"patches": 20, "features": 32}, "generator": {"filters": 4, "blocks": 2}}


def plain_nce(queries, keys, temperature):
    """CUT, eq. 2: for each patch the loss of telling its own key from the others of its image."""
    losses = []
    for q, k in zip(queries, keys, strict=True):
        for s in range(len(q)):
            own = np.exp(np.dot(q[s], k[s]) / temperature)
            others = sum(np.exp(np.dot(q[s], k[n]) / temperature) for n in range(len(k)) if n != s)
            losses.append(-np.log(own / (own + others)))
    return np.mean(losses)


def test_patch_nce_is_the_papers_and_its_keys_take_no_gradient():
    draw = torch.Generator().manual_seed(0)
    queries, keys = (
        torch.nn.functional.normalize(torch.randn(2, 7, 5, generator=draw), dim=2).requires_grad_()
        for _ in "qk"
    )
    loss = patch_nce(queries, keys, 0.07)
    plain = plain_nce(queries.detach().double().numpy(), keys.detach().double().numpy(), 0.07)
    assert float(loss.detach()) == pytest.approx(plain, rel=1e-5)
    loss.backward()
    assert keys.grad is None and queries.grad.abs().sum() > 0


# --- which features are compared


@pytest.mark.parametrize("kind", ZOO)
def test_what_is_encoded_are_the_generators_own_maps(kind):
    """Each map but the image is what a layer gives when the generator translates."""
    name, arguments = ZOO[kind]
    network = awake(initialize(build("generator", name, arguments), std=0.2)).eval()
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    seen = []

    def note(_, __, out):
        if isinstance(out, torch.Tensor):
            seen.append(out.clone())  # at once: the next layer may work in place

    handles = [module.register_forward_hook(note) for module in network.modules()]
    with torch.no_grad():
        network(images)
        for handle in handles:
            handle.remove()
        maps = list(network.encode(images))
    assert len(maps) >= 4 and maps[0].shape[1] == 3
    for x in maps[1:]:
        assert any(x.shape == y.shape and torch.equal(x, y) for y in seen)
    assert all(x.shape[2] >= y.shape[2] for x, y in itertools.pairwise(maps[1:]))


def test_cuts_own_generator_is_compared_at_cuts_own_layers():
    """CUT's code counts 0, 4, 8, 12, 16 in its ResNet of nine blocks that blurs before it halves."""
    arguments = {"filters": 4, "blocks": 9, "downsample": "blur", "upsample": "blur"}
    network = build("generator", "resnet", arguments)
    assert [network.places[layer] for layer in network.patch_layers] == [0, 4, 8, 12, 16]
    widths = patch_widths(TrainSettings(method="cut"))
    assert list(widths.values()) == [3, 128, 256, 256, 256]


def test_projections_are_two_layers_to_unit_length():
    heads = initialize(PatchProjection([3, 128], 256))
    assert sum(p.numel() for p in heads.parameters()) == sum(
        w * 256 + 256 + 256 * 256 + 256 for w in (3, 128)
    )
    patches = [torch.randn(2, 5, 3), torch.randn(2, 5, 128)]
    for found, patch, (first, _, second) in zip(heads(patches), patches, heads.heads, strict=True):
        plain = (patch @ first.weight.T + first.bias).clamp(min=0) @ second.weight.T + second.bias
        torch.testing.assert_close(found, plain / plain.square().sum(2, keepdim=True).sqrt())


# --- a whole step


def plain_places(seed, purpose, layer, positions, many, count):
    """By the images' positions alone, all different."""
    draws = [
        chance.rng(seed, f"{purpose} {layer}", int(p)).choice(many, min(count, many), False, shuffle=False)
        for p in positions
    ]
    assert all(len(set(draw.tolist())) == min(count, many) for draw in draws)
    return draws


def plain_features(G, images, numbers):
    """Outputs of the generator's layers while it translates, by forward hooks."""
    found = {}
    handles = [
        G.layers[n].register_forward_hook(lambda _, __, out, n=n: found.__setitem__(n, out)) for n in numbers
    ]
    G(images)
    for handle in handles:
        handle.remove()
    return [found[n] for n in numbers]


def plain_contrast(networks, w, purpose, positions, source, made, flips):
    G, F = networks["G_AB"], networks["F"]
    numbers = [0, 4, 7, 10, 11]  # padded image, two halving convolutions, two blocks
    total = 0
    maps = zip(plain_features(G, made, numbers), plain_features(G, source, numbers), strict=True)
    for layer, (queries, keys) in enumerate(maps):
        many = queries.shape[2] * queries.shape[3]
        draws = plain_places(w.seed, purpose, layer, positions, many, w.nce.patches)
        for n, draw in enumerate(draws):
            seen = queries[n].flip(2) if flips[n] else queries[n]
            q, k = (F.heads[layer](x.flatten(1)[:, draw.tolist()].T) for x in (seen, keys[n]))
            q, k = (x / x.norm(dim=1, keepdim=True) for x in (q, k))
            similar = torch.exp(q @ k.detach().T / w.nce.temperature)
            total = total - torch.log(similar.diag() / similar.sum(1)).mean() / len(draws)
    return total / len(numbers)


@pytest.mark.parametrize(("method", "temperature"), [("cut", 0.07), ("fastcut", 0.07), ("cut", 0.2)])
def test_a_step_has_the_papers_losses_and_gradients(method, temperature):
    """CUT §3, eq. 5, and Appendix: 1 and the identity half of it; 10, no identity, images mirrored."""
    nce = {**SMALL["nce"], "temperature": temperature}
    chosen = settings(method=method, batch_size=4, **{**SMALL, "nce": nce})
    step, b = TrainingStep(chosen, Accelerator(cpu=True)), batch(4)
    networks = copy.deepcopy(step.networks)
    assert list(networks) == ["G_AB", "D_B", "F"]
    losses = step([b], 1.0)

    G, D, F = networks["G_AB"], networks["D_B"], networks["F"]
    flips = [False] * 4
    if method == "fastcut":
        flips = [chance.rng(0, "equivariance", p).random() < 0.5 for p in range(4)]
        assert 0 < sum(flips) < 4
    shown = torch.stack([x.flip(2) if f else x for x, f in zip(b["real_a"], flips, strict=True)])
    fake_b = G(shown)
    expected = {"adversarial_ab": LSGAN[0](D(fake_b))}
    expected["nce"] = plain_contrast(networks, chosen, "patches", range(4), b["real_a"], fake_b, flips)
    total = expected["adversarial_ab"] + (1 if method == "cut" else 10) * expected["nce"]
    if method == "cut":
        idt_b = G(b["real_b"])
        of_target = plain_contrast(networks, chosen, "patches identity", range(4), b["real_b"], idt_b, flips)
        expected["nce_identity"] = of_target
        total = expected["adversarial_ab"] + 0.5 * expected["nce"] + 0.5 * of_target
    expected["D_B"] = LSGAN[1](D(b["real_b"]), D(fake_b.detach()))
    assert set(losses) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(losses[name], value.detach(), atol=1e-5, rtol=1e-4)

    for loss, names in ((total, ("G_AB", "F")), (expected["D_B"], ("D_B",))):
        for name in names:
            plain = torch.autograd.grad(loss, list(networks[name].parameters()), retain_graph=True)
            plain, found = (
                torch.cat([g.flatten() for g in of])
                for of in (plain, [p.grad for p in step.networks[name].parameters()])
            )
            # Of the whole: a bias before instance norm has a gradient of rounding alone.
            assert (found - plain).norm() < 1e-4 * plain.norm() and plain.norm() > 1e-2
    assert sum(p.numel() for p in F.parameters()) == sum(
        w * 32 + 32 + 32 * 32 + 32 for w in patch_widths(chosen).values()
    )


def test_accumulated_parts_are_one_batch():
    b, found = batch(4), []
    for parts in (1, 2):
        chosen = settings(method="fastcut", batch_size=4, gradient_accumulation=parts, **SMALL)
        step = TrainingStep(chosen, Accelerator(cpu=True))
        cut = [{k: v[i : i + 4 // parts] for k, v in b.items()} for i in range(0, 4, 4 // parts)]
        losses = step(cut, 1.0)
        found.append(({name: gradients(step.networks[name]) for name in step.networks}, losses))
    for name, one in found[0][0].items():
        for key, gradient in one.items():
            torch.testing.assert_close(gradient, found[1][0][name][key], atol=5e-5, rtol=1e-3)
    for key, loss in found[0][1].items():
        torch.testing.assert_close(loss, found[1][1][key], atol=1e-5, rtol=1e-4)


def test_bf16_reaches_every_network():
    """What autocast keeps of the weights that the keys saw without a gradient is not used for the queries."""
    chosen = settings(method="cut", **SMALL)
    step = TrainingStep(chosen, Accelerator(cpu=True, mixed_precision="bf16"))
    losses = step([batch()], 1.0)
    assert all(torch.isfinite(loss) for loss in losses.values())
    for network in step.networks.values():
        for key, p in network.named_parameters():
            assert p.grad is not None and (p.grad.abs().sum() > 0 or key.endswith("bias"))


def test_a_step_with_a_nan_changes_nothing():
    step = TrainingStep(settings(method="cut", **SMALL), Accelerator(cpu=True))
    step([batch()], 1.0)
    before = copy.deepcopy({name: network.state_dict() for name, network in step.networks.items()})
    bad = batch(seed=1)
    bad["real_a"][0, 0, 0, 0] = float("nan")
    step([bad], 1.0)
    assert "nce" in step.guard.wrong
    for name, state in before.items():
        assert all(torch.equal(value, step.networks[name].state_dict()[key]) for key, value in state.items())


@pytest.mark.parametrize("method", ["cut", "fastcut"])
def test_batch_norm_counts_what_is_translated_alone(method):
    """PatchNCE looks at fakes and at images of B, which G_AB will never be given."""
    generator = {**SMALL["generator"], "norm": "batch"}
    nce = {**SMALL["nce"], "flip": False}
    step = TrainingStep(settings(method=method, generator=generator, nce=nce), Accelerator(cpu=True))
    plain, images = copy.deepcopy(step.networks["G_AB"]), batch()
    step.objective_G(images, {"D_B": step.networks["D_B"]})
    plain(images["real_a"])
    if method == "cut":  # its identity loss translates B
        plain(images["real_b"])
    for found, expected in zip(step.networks["G_AB"].buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# --- settings


def test_the_papers_settings_are_the_defaults():
    authors = (("cut", 1.0, True, False, 400), ("fastcut", 10.0, False, True, 200))
    for method, weight, identity, flip, epochs in authors:
        step = TrainingStep(settings(method=method), Accelerator(cpu=True))
        objective = step.objective_G
        assert (objective.weight, objective.identity, objective.flip) == (weight, identity, flip)
        assert (step.pools["B"].size, list(step.pools)) == (0, ["B"])
        assert Length(TrainSettings(method=method), 1000).steps == epochs * 1000
    nce = TrainSettings().nce
    assert (nce.temperature, nce.patches, nce.features) == (0.07, 256, 256)


class Deaf(torch.nn.Module):
    """A generator from elsewhere, which says nothing of its maps."""

    multiple_of = 1

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.layer = torch.nn.Conv2d(channels, channels, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nce": {"layers": [0, 9]}}, "nce.layers: the generator 'resnet' has the maps 0 to 4 here, not 9"),
        ({"nce": {"layers": []}}, "nce.layers: names no map"),
        (
            {"nce": {"layers": [5]}, "generator": {"name": "unet", "filters": 2, "depth": 5}},
            "nce.layers: map 5 has one place",
        ),
        ({"generator": {"name": "deaf"}}, "generator.name: 'deaf' does not give the maps that method 'cut'"),
    ],
)
def test_maps_that_are_not_there_are_refused(changes, message, monkeypatch):
    monkeypatch.setitem(GENERATORS, "deaf", f"{__name__}:Deaf")
    with pytest.raises(BadInput, match=message):
        build_networks(settings(**{"method": "cut", **SMALL, **changes}))


# --- whole runs


CUT = {"method": "cut", "nce__patches": 16, "nce__features": 16}


def weights(run):
    return load_file(run / "generators" / "G_AB" / "model.safetensors")


@pytest.mark.parametrize("method", ["cut", "fastcut"])
def test_a_run_goes_on_bit_for_bit(tiny, here, monkeypatch, method):
    """Over pre-training, the pool and the generator with a reference, killed in its tenth step."""
    generator = {"name": "modnet", "filters": 4, "features": 8, "heads": 2, "blocks": 1, "depth": 2}
    changes = {
        **CUT, "method": method, "steps": 12, "pool_size": 4, "pretrain__steps": 3, "pretrain__patch": 8,
        "checkpoint__every": 5, "generator": {**generator, "style": "reference"},
    }  # fmt: skip
    whole = train(tiny(run_dir=here / "whole", **changes)).run.folder
    plain, calls = loop.TrainingStep.__call__, []

    def power_cut(self, *args):
        calls.append(1)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(loop.TrainingStep, "__call__", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(run_dir=here / "broken", **changes))
    monkeypatch.setattr(loop.TrainingStep, "__call__", plain)
    broken = train(tiny(resume=str(here / "broken"), **changes)).run.folder
    one, other = weights(whole), weights(broken)
    assert all(torch.equal(one[key], other[key]) for key in one)
    states = [
        torch.load(run / "checkpoints/step-00000012/state.pt", weights_only=True) for run in (whole, broken)
    ]
    for key, value in states[0]["F"].items():
        assert torch.equal(value, states[1]["F"][key])
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (whole, broken)]
    assert "completion_ab" in logs[0][0] and "nce" in logs[0][1]
    assert logs[0][-1] == {**logs[1][-1], "images_per_s": logs[0][-1]["images_per_s"]}


@pytest.fixture
def one_way(tiny, here):
    return train(tiny(**CUT, steps=4, evaluation__every=2, run_dir=here / "cut"))


def test_a_run_of_one_direction_leaves_what_others_leave(one_way, tiny, here):
    run = one_way.run.folder
    assert sorted(path.name for path in (run / "generators").iterdir()) == ["G_AB", "best"]
    assert [path.name for path in (run / "generators" / "best").iterdir()] == ["G_AB"]
    assert [path.name for path in (run / "translated").iterdir()] == ["AtoB"]
    config = read_config(run / "generators" / "G_AB")
    assert (config.direction, config.method) == ("AtoB", "cut")
    assert "A CUT generator" in (run / "generators" / "G_AB" / "README.md").read_text()
    assert set(one_way.summary()["generators"]) == {"G_AB"}
    lines = [json.loads(line) for line in (run / "evaluations.jsonl").open()]
    assert [(line["step"], line["direction"]) for line in lines] == [(2, "AtoB"), (4, "AtoB")]
    # The test files are pairs.
    assert list(read_grid(one_way.grid)) == ["real_a", "fake_b", "true b", "real_b", "idt_b"]
    report = (run / "report.html").read_text()
    assert "A translator was trained" in report and "⇄" not in report.split("<main")[0].split("<h1>")[1]
    state = torch.load(run / "checkpoints" / "step-00000004" / "state.pt", weights_only=True)
    assert {"G_AB", "D_B", "F", "pool_b"} <= set(state) and not {"G_BA", "D_A", "pool_a"} & set(state)
    assert list(state["averaged"]) == ["G_AB"]

    both = train(tiny(steps=2, run_dir=here / "cycle")).run.folder
    found = compare_runs([run, both], None, None, best=False, images=4, count=2)
    assert list(found.grids) == ["AtoB"] and "AtoB: figures on 4" in tables(found.facts)[2][0]
    with pytest.raises(BadInput, match="G_BA: no such folder"):
        compare_runs([run, both], None, "BtoA", best=False, images=4, count=2)
    with pytest.raises(
        BadInput, match="its F is another network than the settings name; go on without another method, or"
    ):
        train(tiny(resume=str(both), steps=4, method="cut", resume_with=("method=cut",)))


def test_its_generator_is_the_average_of_its_last_step(one_way):
    network, _ = load_generator(one_way.run.folder / "generators" / "G_AB")
    state = torch.load(one_way.run.folder / "checkpoints/step-00000004/state.pt", weights_only=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, state["averaged"]["G_AB"][key])
    assert not all(torch.equal(value, state["G_AB"][key]) for key, value in network.state_dict().items())
