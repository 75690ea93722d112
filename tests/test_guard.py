"""Numbers that go wrong, injected into real steps and runs: never applied, never saved, named."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from poison import poison
from safetensors.torch import load_file

from cyclegan.recipes import to_yaml
from cyclegan.training import loop
from cyclegan.training.checkpoint import checkpoints
from cyclegan.training.outcome import TrainingFailed
from cyclegan.training.step import TrainingStep
from cyclegan.training.train import train

NAN, INF = float("nan"), float("inf")


def batch(settings, number=0):
    draw = torch.Generator().manual_seed(number)
    n = settings.batch_size
    real_a, real_b = (torch.rand(n, 3, settings.size, settings.size, generator=draw) * 2 - 1 for _ in "ab")
    return {"real_a": real_a, "real_b": real_b, "position": torch.arange(n * number, n * (number + 1))}


def everything(step):
    """All that a step may change, copied."""
    tensors = {
        f"{name}.{key}": value.clone()
        for name in step.networks
        for key, value in step.networks[name].state_dict().items()
    }
    for which in ("optimizer_G", "optimizer_D"):
        for index, state in getattr(step, which).state_dict()["state"].items():
            tensors |= {f"{which}.{index}.{key}": torch.as_tensor(v).clone() for key, v in state.items()}
    for pool in step.pools.values():
        tensors |= {f"pool {pool.name} {i}": image for i, image in enumerate(pool.state())}
    return tensors


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def poison_pixel(step, parts, value):
    parts[0]["real_a"][0, 0, 3, 3] = value


def poison_gradient(step, parts, value):
    weight = next(step.networks["G_BA"].parameters())
    weight.register_hook(lambda gradient: gradient * value)


def poison_discriminator(step, parts, value):
    # The hook runs only while gradients for the discriminators are taken.
    weight = list(step.networks["D_B"].parameters())[-2]
    weight.register_hook(lambda gradient: torch.full_like(gradient, value))


BF16 = {"precision": "bf16"}
KINDS = {
    "fp32": {},
    "bf16": BF16,
    "with batch norm": {"generator": {"norm": "batch", "filters": 4, "blocks": 1}},
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [NAN, INF])
@pytest.mark.parametrize("poison", [poison_pixel, poison_gradient])
def test_a_step_with_such_numbers_changes_nothing(tiny, kind, value, poison):
    settings = tiny(**KINDS[kind])
    step = TrainingStep(settings, Accelerator(cpu=True, mixed_precision=settings.precision))
    for number in range(2):
        step([batch(settings, number)], 1.0)
        assert step.guard.wrong == []
    before = everything(step)
    parts = [batch(settings, 2)]
    poison(step, parts, value)
    step(parts, 1.0)
    assert step.guard.wrong
    assert ("a gradient of G" in step.guard.wrong) or value == INF
    assert same(before, everything(step))


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_gradient_of_the_discriminators_leaves_them_as_they_are(tiny, kind):
    settings = tiny(**KINDS[kind])
    step = TrainingStep(settings, Accelerator(cpu=True, mixed_precision=settings.precision))
    step([batch(settings)], 1.0)
    before = everything(step)
    poison_discriminator(step, [], NAN)
    step([batch(settings, 1)], 1.0)
    after = everything(step)
    assert step.guard.wrong == ["a gradient of D"]
    changed = {key.split(".")[0] for key in before if not torch.equal(before[key], after[key])}
    assert changed == {"G_AB", "G_BA", "optimizer_G"}
    assert all(value.isfinite().all() for value in after.values())


def test_a_gradient_too_large_to_square_is_refused(tiny):
    """1e25 is finite in fp32, its square is not: Adam's second moment would be infinite for ever."""
    settings = tiny()
    step = TrainingStep(settings, Accelerator(cpu=True))
    poison_gradient(step, [], 1e30)
    step([batch(settings)], 1.0)
    assert step.guard.wrong == ["a gradient of G"]
    assert step.optimizer_G.state_dict()["state"] == {}


@pytest.fixture
def scaled(tiny):
    """A step under the scaler of fp16, which torch has for CPUs too; the arithmetic stays fp32."""

    def make(scale):
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        return TrainingStep(tiny(), accelerator)

    return make


def test_fp16s_scaler_skips_by_itself_and_the_guard_lets_it(scaled):
    step = scaled(2.0**127)
    first = everything(step)
    step([batch(step.settings)], 1.0)
    # The generators' gradients overflowed: the scaler left the update out and halved its scale; so it did for
    # the discriminators', where a sum on the way to theirs is as large.
    assert step.guard.wrong == []
    assert step.accelerator.scaler.get_scale() in (2.0**126, 2.0**125)
    of_G = {key for key in first if key.startswith("G_")}
    assert all(torch.equal(first[key], everything(step)[key]) for key in of_G)
    for number in range(60):
        step([batch(step.settings, number)], 1.0)
        assert step.guard.wrong == []
    assert not all(torch.equal(first[key], everything(step)[key]) for key in of_G)


def test_under_a_scaler_a_bad_picture_is_refused_and_the_scale_stays(scaled):
    step = scaled(1024.0)
    step([batch(step.settings)], 1.0)
    before = everything(step)
    parts = [batch(step.settings, 1)]
    poison_pixel(step, parts, NAN)
    step(parts, 1.0)
    assert "identity_a" in step.guard.wrong
    assert same(before, everything(step))
    assert step.accelerator.scaler.get_scale() == 1024
    step([batch(step.settings, 2)], 1.0)
    assert step.guard.wrong == []


def test_gradients_that_no_scale_makes_finite_are_wrong(scaled):
    step = scaled(8.0)
    poison_gradient(step, [], INF)
    found = []
    for number in range(5):
        step([batch(step.settings, number)], 1.0)
        found.append(step.guard.wrong)
    assert found[:3] == [[]] * 3
    assert found[-1] == ["a gradient of G, at any scale of fp16"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="fp16 needs a CUDA GPU")
def test_fp16_on_a_gpu(tiny):
    settings = tiny(precision="fp16")
    step = TrainingStep(settings, Accelerator(mixed_precision="fp16"))
    parts = [{key: value.cuda() for key, value in batch(settings).items()}]
    for _ in range(30):  # the first scale, 65536, may well be too large
        step(parts, 1.0)
        assert step.guard.wrong == []
    before = everything(step)
    parts[0]["real_a"][0, 0, 0, 0] = NAN
    step(parts, 1.0)
    assert step.guard.wrong
    assert same(before, everything(step))


# --- whole runs


def trouble(run):
    return [json.loads(line) for line in (run / "trouble.jsonl").read_text().splitlines()]


def finite(run):
    for path in run.rglob("*.safetensors"):
        assert all(value.isfinite().all() for value in load_file(path).values())
    for checkpoint in checkpoints(run / "checkpoints"):
        state = torch.load(checkpoint / "state.pt", weights_only=True)
        for name in ("G_AB", "G_BA", "D_A", "D_B"):
            assert all(v.isfinite().all() for v in state[name].values() if v.is_floating_point())


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_one_bad_batch_is_named_and_passed_over(tiny, here, monkeypatch, capsys, precision):
    poison(monkeypatch, lambda call: call == 2)
    result = train(tiny(steps=6, checkpoint__every=3, log_every=1, precision=precision, run_dir=here / "run"))
    assert result.step == 6
    said = capsys.readouterr().err
    (entry,) = trouble(here / "run")
    assert entry["step"] == 3 and "identity_b" in entry["refused"]
    for side in "ab":
        assert len(entry[side]) == 2 and all(Path(path).is_file() for path in entry[side])
        assert all(path in said for path in entry[side])
    assert "step 3 was not applied: " in said
    # The log has losses of the steps that were applied, and no NaN.
    lines = [json.loads(line) for line in (here / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "cycle_a" in line] == [1, 2, 4, 5, 6]
    finite(here / "run")


def test_the_files_named_are_those_of_the_batch(tiny, here, monkeypatch, emoji):
    """Told apart by what was shown: the stored image at the named file is the one that the step saw."""
    shown = []
    plain = TrainingStep.__call__

    def step(self, parts, factor):
        shown.append(parts[0]["real_a"].clone())
        parts[0]["real_b"][:] = NAN
        return plain(self, parts, factor)

    monkeypatch.setattr(loop.TrainingStep, "__call__", step)
    run = here / "run"
    train(tiny(steps=2, run_dir=run, augment={"preset": "resize", "flip": False}))
    from cyclegan.images import read_image, resize, to_tensor

    for entry, images in zip(trouble(run), shown, strict=True):
        for path, image in zip(entry["a"], images, strict=True):
            assert torch.equal(to_tensor(resize(read_image(Path(path)).pixels, 32, 32)), image)


def test_after_some_in_a_row_training_goes_back_with_another_order_and_half_the_rate(
    tiny, here, monkeypatch, capsys
):
    seen = poison(monkeypatch, lambda call: 5 <= call < 8)
    run = here / "run"
    result = train(
        tiny(
            steps=8,
            checkpoint__every=4,
            log_every=1,
            numbers={"refused": 3},
            run_dir=run,
            optimizer__decay_from=1,
        )
    )
    assert result.step == 8 and result.images_seen == 16
    assert (
        "3 steps in a row could not be applied: back to step 4 with a new data order"
        in capsys.readouterr().err
    )
    assert [factor for _, factor in seen] == [1.0] * 8 + [0.5] * 4
    first, again = [positions for positions, _ in seen[4:8]], [positions for positions, _ in seen[8:]]
    assert not {p for step in first for p in step} & {p for step in again for p in step}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert lines[-1]["lr_G"] == pytest.approx(1e-4)
    finite(run)
    # A run that goes on afterwards keeps what was changed.
    monkeypatch.undo()
    monkeypatch.chdir(here)
    seen = poison(monkeypatch, lambda call: False)
    train(tiny(resume=str(run), steps=10, numbers={"refused": 3}, optimizer__decay_from=1))
    assert [factor for _, factor in seen] == [0.5, 0.5]
    assert min(seen[0][0]) > 2**32


def test_what_goes_wrong_again_and_again_is_given_up_with_a_diagnosis(tiny, here, monkeypatch):
    seen = poison(monkeypatch, lambda call: call >= 4)
    run = here / "run"
    settings = tiny(
        steps=20, checkpoint__every=2, numbers={"refused": 2, "setbacks": 2}, precision="bf16", run_dir=run
    )
    with pytest.raises(TrainingFailed) as caught:
        train(settings)
    message = str(caught.value)
    for part in (
        "in 2 steps in a row up to step 6",
        "after going back 2 times",
        "a lower --optimizer.lr",
        "--precision no",
        "trouble.jsonl",
    ):
        assert part in message
    assert "\n" not in message
    assert len(seen) == 4 + 3 * 2
    assert [p.name for p in checkpoints(run / "checkpoints")] == ["step-00000002", "step-00000004"]
    finite(run)


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(tiny, here, monkeypatch):
    poison(monkeypatch, lambda call: True)
    with pytest.raises(TrainingFailed, match="nothing was saved yet"):
        train(tiny(steps=20, numbers={"refused": 4}, run_dir=here / "run"))
    assert not (here / "run" / "generators").exists()


def test_weights_that_are_not_finite_are_not_saved(tiny, here, monkeypatch):
    """The last net: an update that itself overflows is seen before anything is written."""
    plain = TrainingStep.__call__

    def step(self, parts, factor):
        losses = plain(self, parts, factor)
        with torch.no_grad():
            next(self.networks["D_A"].parameters())[0] = INF
        return losses

    monkeypatch.setattr(loop.TrainingStep, "__call__", step)
    with pytest.raises(TrainingFailed, match="step 1 is not saved: the weights of D_A are NaN or infinite"):
        train(tiny(checkpoint__every=1, run_dir=here / "run"))
    assert not (here / "run" / "checkpoints").exists()


def test_two_processes_agree_when_one_sees_it(tiny, here):
    """Only the second process' picture is poisoned; both leave the step out and end with equal weights."""
    (here / "mine.yaml").write_text(to_yaml(tiny(batch_size=2, steps=5, log_every=1, checkpoint__every=2)))
    script = Path(__file__).parent / "fixtures" / "poisoned_run.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, str(script), "mine.yaml", "3", "run"],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (entry,) = trouble(here / "run")
    assert entry["step"] == 3 and len(entry["a"]) == 2
    digests = [line for line in done.stdout.splitlines() if line.startswith("weights ")]
    assert len(digests) == 2 and len(set(digests)) == 1
    finite(here / "run")
