"""What saves time or memory changes no result, and Adam's memory fits wherever a run goes on."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from cyclegan.config import SpeedSettings, TrainSettings
from cyclegan.errors import BadInput
from cyclegan.networks import build
from cyclegan.networks.layers import initialize
from cyclegan.networks.trained import for_training
from cyclegan.training.checkpoint import Progress, save_checkpoint
from cyclegan.training.ema import update_average
from cyclegan.training.meter import Meter
from cyclegan.training.precision import set_up_cuda
from cyclegan.training.state import restore, state_of
from cyclegan.training.step import TrainingStep, compile_networks, has_compiler
from cyclegan.training.train import TrainingFailed, train


def step_with(norm="batch", **changes):
    return TrainingStep(
        TrainSettings(
            batch_size=2,
            size=32,
            generator={"filters": 4, "blocks": 2, "norm": norm, "dropout": True, "upsample": "resize"},
            discriminator={"filters": 4, "layers": 2, "norm": "none"},
            **changes,
        ),
        Accelerator(cpu=True),
    )


def batch(number=0):
    draw = torch.Generator().manual_seed(number)
    real_a, real_b = (torch.rand(2, 3, 32, 32, generator=draw) * 2 - 1 for _ in "ab")
    return {"real_a": real_a, "real_b": real_b, "position": torch.arange(2) + 2 * number}


def state(step):
    return {
        f"{name}.{key}": value
        for name, network in step.networks.items()
        for key, value in network.state_dict().items()
    }


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_recomputed_features_change_no_weight_and_no_statistic(norm):
    """With dropout, whose mask must come again, and running statistics, which must not be counted twice."""
    plain, frugal = step_with(norm), step_with(norm, speed={"recompute": True})
    for number in range(2):
        expected, found = plain([batch(number)], 1.0), frugal([batch(number)], 1.0)
        for name, loss in expected.items():
            torch.testing.assert_close(found[name], loss)
    for key, value in state(plain).items():
        torch.testing.assert_close(state(frugal)[key], value, atol=1e-6, rtol=1e-5)


def test_recomputed_features_are_not_kept():
    def kept(**changes):
        step, found = step_with(**changes), []
        with saved_tensors_hooks(lambda t: found.append(t.untyped_storage().nbytes()) or t, lambda t: t):
            b = batch()
            step.objective_G(b, {name: step.networks[name] for name in ("D_A", "D_B")})
        return sum(found)

    assert kept(speed={"recompute": True}) < 0.3 * kept()


def test_another_layout_of_adams_memory_is_taken_over(tmp_path):
    """A checkpoint of a machine that kept its weights in the other order leads to the same next step."""
    ours = step_with()
    ours([batch(0)], 1.0)
    averaged = {name: copy.deepcopy(ours.networks[name]) for name in ("G_AB", "G_BA")}
    kept = state_of(ours, averaged, {"steps": 0, "sums": {}, "counts": {}})
    for optimizer in ("optimizer_G", "optimizer_D"):
        kept[optimizer] = copy.deepcopy(kept[optimizer])
        for values in kept[optimizer]["state"].values():
            for key, value in values.items():
                values[key] = value.contiguous()
        kept[optimizer]["param_groups"][0]["fused"] = None  # as on a GPU at fp16
    folder = save_checkpoint(tmp_path, kept, Progress(step=1, images_seen=2), {}, TrainSettings().checkpoint)
    other = step_with(seed=1)
    restore(folder, other, averaged, Meter(other.accelerator, 2))
    for p, q in zip(ours.objective_G.parameters(), other.objective_G.parameters(), strict=True):
        found, expected = other.optimizer_G.state[q]["exp_avg"], ours.optimizer_G.state[p]["exp_avg"]
        assert found.stride() == q.stride() == p.stride()
        assert torch.equal(found, expected)
    assert other.optimizer_G.param_groups[0]["fused"]
    other.settings = ours.settings  # the seed of the masks
    other.pools = copy.deepcopy(ours.pools)
    ours([batch(1)], 1.0)
    other([batch(1)], 1.0)
    for key, value in state(ours).items():
        assert torch.equal(state(other)[key], value)


def test_averages_of_a_step_are_plain_networks(monkeypatch):
    """A copy of a network, which is what is averaged and saved, computes with its own weights."""
    step = step_with(speed={"recompute": True})
    average = copy.deepcopy(step.networks["G_AB"])
    step([batch()], 1.0)
    assert not torch.equal(average.layers[1].weight, step.networks["G_AB"].layers[1].weight)
    update_average(average, step.networks["G_AB"], decay=0.0, step=10**9)
    images = batch()["real_a"]
    assert torch.equal(average.eval()(images), step.networks["G_AB"].eval()(images))


def test_tf32_and_cudnns_trials_are_settings():
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark
    try:
        for tf32, autotune in ((True, False), (False, True)):
            set_up_cuda(SpeedSettings(tf32=tf32, autotune=autotune))
            assert (cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark) == (tf32, tf32, autotune)
        set_up_cuda(SpeedSettings())
        assert cudnn.allow_tf32 and matmul.allow_tf32 and cudnn.benchmark
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark = before


def test_compiled_networks_take_the_same_step(monkeypatch):
    """With dynamo and autograd's graphs, but without the minutes that the C++ compiler takes."""
    compiles = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: compiles(self, backend="aot_eager"))
    plain, compiled = step_with(), step_with(speed={"compile": True})
    expected, found = plain([batch()], 1.0), compiled([batch()], 1.0)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, atol=1e-4, rtol=1e-3)
    assert list(state(compiled)) == list(state(plain))
    copy.deepcopy(compiled.networks["G_AB"]).eval()(batch()["real_a"])


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("more", [{"upsample": "resize"}, {"padding": "replicate"}, {"upsample": "blur"}])
def test_torchs_own_compiler_takes_borders_that_are_repeated(more):
    """Its backward pass, which the quick stand-in above does not have."""
    torch.manual_seed(0)
    network = initialize(build("generator", "resnet", {"filters": 4, "blocks": 1, **more}), std=0.2)
    network = for_training(network, torch.device("cpu"))
    images, found = torch.randn(1, 3, 32, 32), []
    for each in (network, torch.compile(network)):
        network.zero_grad()
        each(images).square().sum().backward()
        found.append([p.grad.clone() for p in network.parameters()])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("losses", [{"lambda_r1": 1}, {"adversarial": "wgan-gp"}])
def test_penalties_go_without_compiled_discriminators(monkeypatch, losses):
    """Torch gives no gradients of gradients of what it has compiled."""
    compiles = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: compiles(self, backend="aot_eager"))
    expected = step_with(losses=losses)([batch()], 1.0)
    found = step_with(losses=losses, speed={"compile": True})([batch()], 1.0)
    for name, loss in expected.items():
        torch.testing.assert_close(found[name], loss, atol=1e-4, rtol=1e-3)


def test_cuda_graphs_are_recorded_step_by_step(monkeypatch):
    """What a CPU can show: what torch is asked for, and that each step is a round of its own.

    No GPU has replayed them. That the pool keeps fakes of its own is tested beside it.
    """
    modes, rounds = [], []
    monkeypatch.setattr(nn.Module, "compile", lambda self, mode: modes.append(mode))
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: rounds.append(len(rounds)))
    network = nn.Conv2d(3, 3, 1)
    compile_networks([network, network], SpeedSettings(compile=True, cuda_graphs=True), torch.device("cuda"))
    assert modes == ["reduce-overhead"] * 2
    step = step_with(speed={"compile": True})
    step.settings = step.settings.model_copy(update={"speed": SpeedSettings(compile=True, cuda_graphs=True)})
    for number in range(2):
        step([batch(number)], 1.0)
    assert rounds == [0, 1]


def test_cuda_graphs_need_a_gpu_and_compiled_networks():
    with pytest.raises(BadInput, match=r"speed\.cuda_graphs: needs a CUDA GPU, and the networks are on cpu"):
        step_with(speed={"compile": True, "cuda_graphs": True})
    with pytest.raises(
        ValueError, match=r"speed\.cuda_graphs records what is compiled; set speed\.compile too"
    ):
        TrainSettings(speed={"cuda_graphs": True})


def test_recomputed_completion_is_the_same():
    plain, frugal = step_with(), step_with(speed={"recompute": True})
    masks = tuple((torch.rand(2, 1, 32, 32) > 0.4).float() for _ in "ab")
    results = []
    for step in (plain, frugal):
        torch.manual_seed(3)  # of the dropout
        results.append(step.objective_G(batch(), {}, masks)[0])
    torch.testing.assert_close(*results)
    for result in results:
        result.backward()
    for p, q in zip(plain.objective_G.parameters(), frugal.objective_G.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4)


def test_features_of_a_one_sided_loss_are_kept():
    with pytest.raises(ValueError, match="speed.recompute and method 'cut' clash"):
        TrainSettings(method="cut", speed={"recompute": True})


def test_compiling_without_a_compiler_is_refused_before_anything_is_written(tiny, here, monkeypatch):
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", (None, "/nowhere/g++"))
    with pytest.raises(BadInput, match="speed.compile: .* there is no compiler; install g"):
        train(tiny(steps=1, run_dir=here / "run", speed={"compile": True}))
    assert not (here / "run").exists()


def test_what_torch_cannot_compile_is_said_in_one_line(tiny, here, monkeypatch):
    def fail(*args, **kwargs):
        raise torch._dynamo.exc.Unsupported("call_function of\nsomething")

    monkeypatch.setattr(TrainingStep, "__call__", fail)
    with pytest.raises(
        TrainingFailed, match="speed.compile: torch cannot compile .*call_function of something"
    ):
        train(tiny(steps=1, run_dir=here / "run"))
