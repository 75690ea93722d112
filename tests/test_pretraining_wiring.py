"""A step of pre-training beside UVCGAN's task written out (§3.3): what goes in, and what comes of it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from test_network_zoo import SMALL, awake
from test_step import batch, settings

from cyclegan.training.pretraining import masks
from cyclegan.training.step import TrainingStep

GENERATORS = {
    "resnet": {"filters": 4, "blocks": 1},
    "vit_unet": {"name": "vit_unet", **SMALL, "depth": 2},
    "modnet": {"name": "modnet", **SMALL, "depth": 2},
    "modnet, reference": {"name": "modnet", "style": "reference", **SMALL, "depth": 2},
}
SEED = 5


@pytest.fixture
def _in_fp64():
    """So that a difference is no rounding; norms of modulated weights alone stay at fp32 there."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def pretraining(**changes):
    """A step whose generators do more than the nothing that they begin with."""
    chosen = settings(seed=SEED, **{"pretrain": {"steps": 9, "patch": 8}, **changes})
    step = TrainingStep(chosen, Accelerator(cpu=True))
    for name in step.directions:
        for parameter in step.networks[name].parameters():
            if parameter.ndim > 1:
                torch.nn.init.normal_(parameter, std=(2 / parameter[0].numel()) ** 0.5)
        awake(step.networks[name])
    return step


def completion(network, b, kept):
    """L1(G(whole * masks), whole), the mean over both domains; a reference is the whole picture."""
    total = 0
    for kind, mask in zip(("real_a", "real_b"), kept, strict=True):
        reference = (b[kind],) if getattr(network, "takes_reference", False) else ()
        total = total + F.l1_loss(network(b[kind] * mask, *reference), b[kind])
    return total / 2


def hold_gradients(step, networks, losses):
    """Of the networks that ``losses`` name, each by its own."""
    for name, loss in losses.items():
        expected = torch.autograd.grad(loss, list(networks[name].parameters()), allow_unused=True)
        assert max(float(e.abs().max()) for e in expected if e is not None) > 1e-3
        for one, other in zip(step.networks[name].parameters(), expected, strict=True):
            wanted = torch.zeros_like(one) if other is None else other
            torch.testing.assert_close(one.grad, wanted, atol=1e-7, rtol=1e-5)


@pytest.mark.usefixtures("_in_fp64")
@pytest.mark.parametrize("method", ["cyclegan", "cut"])
@pytest.mark.parametrize("kind", GENERATORS)
def test_a_step_completes_masked_pictures_of_both_domains(kind, method):
    step = pretraining(generator=GENERATORS[kind], method=method, nce={"patches": 8, "features": 8})
    networks, b = copy.deepcopy(step.networks), batch(seed=2)
    found = step([b], 1.0)
    kept = [masks(step.settings.pretrain, SEED, side, b["position"].tolist(), 32) for side in "AB"]
    expected = {name: completion(networks[name], b, kept) for name in step.directions}
    assert list(expected) == (["G_AB", "G_BA"] if method == "cyclegan" else ["G_AB"])
    assert set(found) == {f"completion_{name[2:].lower()}" for name in expected}
    for name, loss in expected.items():
        torch.testing.assert_close(found[f"completion_{name[2:].lower()}"], loss.detach(), atol=1e-7, rtol=0)
    hold_gradients(step, networks, expected)
    for name, network in step.networks.items():
        if name not in expected:  # judges, and the heads of PatchNCE
            assert all(p.grad is None or not p.grad.any() for p in network.parameters())
            for one, other in zip(network.parameters(), networks[name].parameters(), strict=True):
                assert torch.equal(one, other)


def test_parts_of_a_batch_are_completed_as_one():
    """And with features that are computed anew."""
    b, found = batch(4), []
    for parts in (1, 2):
        torch.manual_seed(0)
        step = pretraining(
            generator=GENERATORS["modnet, reference"],
            batch_size=4,
            gradient_accumulation=parts,
            speed={"recompute": parts == 2},
        )
        step([{k: v[i : i + 4 // parts] for k, v in b.items()} for i in range(0, 4, 4 // parts)], 1.0)
        found.append([p.grad for name in step.directions for p in step.networks[name].parameters()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


def seen_in_training(step, b):
    """What a generator is given for a batch, and beside it the whole pictures: (2 N, C, H, W) both."""
    given = []
    handle = step.networks["G_AB"].register_forward_pre_hook(
        lambda _, inputs: given.append(inputs[0].clone())
    )
    step([b], 1.0)
    handle.remove()
    return torch.cat(given), torch.cat([b["real_a"], b["real_b"]])


@pytest.mark.parametrize(
    ("masked", "patch", "size"), [(0.25, 4, 32), (0.4, 8, 32), (0.6, 8, 36), (0.75, 2, 32)]
)
def test_a_generator_sees_the_configured_share_in_patches_of_the_configured_side(masked, patch, size):
    """At 36 pixels the patches at the border are cut off by half."""
    step = pretraining(
        generator={"filters": 2, "blocks": 0},
        pretrain={"steps": 9, "masked": masked, "patch": patch},
        size=size,
        batch_size=24,
    )
    given, whole = seen_in_training(step, batch(24, size))
    kept = given == whole
    assert torch.equal(given[~kept], torch.zeros_like(given[~kept]))
    # By hand, patch by patch: all of it is there in all channels, or nothing.
    patches = [
        kept[:, :, y : y + patch, x : x + patch].float().mean(dim=(1, 2, 3)).tolist()
        for y in range(0, size, patch)
        for x in range(0, size, patch)
    ]
    shares = [share for of_pictures in patches for share in of_pictures]
    assert set(shares) == {0.0, 1.0}
    deviation = (masked * (1 - masked) / len(shares)) ** 0.5
    assert abs(shares.count(0.0) / len(shares) - masked) < 4 * deviation < 0.1
    # No patch goes with another, no picture has another's mask, in both domains, and the next batch has others.
    assert len({tuple(of_pictures) for of_pictures in patches}) == len(patches)
    assert len(set(zip(*patches, strict=True))) == 48
    later, whole = seen_in_training(step, batch(24, size, seed=1))
    assert not any(torch.equal(one, other) for one, other in zip(later == whole, kept, strict=True))
