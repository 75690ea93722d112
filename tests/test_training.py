"""Whole runs: what they write, that they learn, that they go on where they stopped."""

import json
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file

from cyclegan import Translator
from cyclegan.artifacts import read_config
from cyclegan.errors import BadInput
from cyclegan.networks import deployed
from cyclegan.recipes import read_yaml
from cyclegan.training import loop, precision
from cyclegan.training.checkpoint import checkpoints
from cyclegan.training.train import train


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run, name="G_AB"):
    return load_file(run / "generators" / name / "model.safetensors")


def test_a_run_leaves_what_the_design_says(tiny):
    result = train(tiny(samples__every=2, checkpoint__every=2))
    run = result.run.folder
    assert read_yaml(run / "config.yaml")["size"] == 32
    assert [line["step"] for line in metrics(run)] == [2, 4]
    assert {"cycle_a", "identity_b", "adversarial_ab", "D_A", "lr_G", "images_per_s"} <= set(metrics(run)[0])
    assert metrics(run)[1]["images_seen"] == 8
    assert sorted(p.name for p in (run / "samples").iterdir()) == ["step-00000002.png", "step-00000004.png"]
    assert [p.name for p in checkpoints(run / "checkpoints")] == ["step-00000002", "step-00000004"]
    for name in ("G_AB", "G_BA"):
        found = {p.name for p in (run / "generators" / name).iterdir()}
        assert found == {"model.safetensors", "config.json", "README.md", "examples.png"}
    assert sorted(p.name for p in (run / "translated").iterdir()) == ["AtoB", "BtoA"]
    assert len(list((run / "translated" / "AtoB").iterdir())) == 3
    assert not [p for p in run.rglob("*") if p.name.endswith((".part", ".old"))]


def test_only_the_newest_checkpoints_stay(tiny):
    run = train(tiny(steps=6, checkpoint__every=1, checkpoint__keep=2)).run
    assert [p.name for p in checkpoints(run.checkpoints)] == ["step-00000005", "step-00000006"]


def test_the_grid_shows_what_its_headings_say(tiny):
    result = train(tiny())
    grid = np.asarray(Image.open(result.grid))
    # 2 rows; 5 columns a block, for the test files are pairs; tiles of 32 px enlarged to 128.
    assert grid.shape == (28 + 2 * 134 + 6, 2 * (5 * 134 - 6) + 28 + 12, 3)
    real_a, true_a = grid[28:156, 6:134], grid[28:156, 6 + 664 + 28 + 2 * 134 :][:, :128]
    np.testing.assert_array_equal(real_a, true_a)
    fake_b = grid[28:156, 140:268]
    assert np.abs(fake_b.astype(int) - real_a).mean() > 5


def test_the_same_seed_gives_the_same_run(tiny, here):
    runs = [
        train(tiny(run_dir=here / name, seed=seed)).run.folder
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = (weights(run) for run in runs)
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


@pytest.mark.parametrize(
    "kind", [{"precision": "no"}, {"precision": "bf16"}, {"precision": "no", "generator__dropout": True}]
)
def test_a_resumed_run_is_the_run_never_stopped(tiny, here, kind, monkeypatch):
    """Stopped in the middle of an epoch, with full pools, past the start of the decay."""
    changes = {"steps": 16, "pool_size": 4, "checkpoint__every": 11, **kind}
    whole = train(tiny(run_dir=here / "whole", **changes)).run.folder
    broken = here / "broken"
    plain = loop.TrainingStep.__call__
    calls = []

    def power_cut(self, *args):
        calls.append(1)
        if len(calls) == 14:
            raise KeyboardInterrupt
        return plain(self, *args)

    monkeypatch.setattr(loop.TrainingStep, "__call__", power_cut)
    with pytest.raises(KeyboardInterrupt):
        train(tiny(run_dir=broken, **changes))
    monkeypatch.setattr(loop.TrainingStep, "__call__", plain)
    train(tiny(resume=str(broken), **changes))
    for name in ("G_AB", "G_BA"):
        one, other = weights(whole, name), weights(broken, name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    assert [line["step"] for line in metrics(broken)] == [line["step"] for line in metrics(whole)]
    # The log's averages begin anew at the checkpoint; every line after the next is the same.
    for one, other in zip(metrics(whole)[6:], metrics(broken)[6:], strict=True):
        assert {**one, "images_per_s": 0} == {**other, "images_per_s": 0}


def test_a_unet_is_trained_and_translates_what_is_smaller_than_it(tiny):
    generator = {"name": "unet", "filters": 2, "depth": 5, "norm": "batch"}
    run = train(tiny(generator=generator, samples={"count": 2, "translate": 3})).run
    config = read_config(run.generator("G_AB"))
    assert (config.network.name, config.multiple_of, config.network.arguments["depth"]) == ("unet", 32, 5)
    image = torch.zeros(1, 3, 20, 40)
    assert Translator.from_pretrained(run.generator("G_AB"))(image).shape == image.shape


@pytest.mark.slow
def test_two_hundred_steps_lower_the_cycle_loss(tiny):
    run = train(
        tiny(steps=200, log_every=20, optimizer__lr=1e-3, generator__filters=16, precision="auto")
    ).run.folder
    lines = metrics(run)
    for name in ("cycle_a", "cycle_b", "identity_a"):
        assert lines[-1][name] < 0.7 * lines[0][name]


def test_time_ends_a_run(tiny):
    result = train(tiny(steps=None, minutes=0.05))
    assert 0.05 <= result.minutes < 0.5
    assert result.step > 1


@pytest.mark.parametrize("adversarial", ["vanilla", "hinge", "wgan-gp"])
def test_other_losses_run(tiny, adversarial):
    assert train(tiny(steps=2, losses__adversarial=adversarial)).step == 2


def test_grey_images(tiny):
    result = train(tiny(steps=2, data__channels=1))
    config = json.loads((result.run.generator("G_AB") / "config.json").read_text())
    assert config["channels"] == config["network"]["arguments"]["channels"] == 1
    translated = next((result.run.folder / "translated" / "AtoB").iterdir())
    assert Image.open(translated).mode == "L"


def test_without_tests_the_grid_shows_training_images(tiny, small_domain, here):
    for split in ("trainA", "trainB"):
        (here / "mine" / split).parent.mkdir(exist_ok=True)
        (here / "mine" / split).symlink_to(small_domain / split)
    result = train(tiny(data__root=here / "mine", steps=2))
    assert result.grid.exists()
    assert result.translated == []


def test_the_tracker_none_leaves_wandb_unimported(tiny, here):
    import subprocess

    from cyclegan.recipes import to_yaml

    (here / "mine.yaml").write_text(to_yaml(tiny(steps=1)))
    script = (
        "import sys; from cyclegan.cli import main\n"
        "try: main(['train', 'mine.yaml'])\n"
        "except SystemExit as e: assert not e.code\n"
        "print('wandb' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


REFUSED = {
    "a folder that holds a run": ({"run_dir": "there"}, "already holds a run; add --resume"),
    "an uneven batch": ({"batch_size": 3, "gradient_accumulation": 1, "processes": 2}, "does not divide"),
    "nothing to resume": ({"resume": "latest"}, "has no checkpoint to resume from"),
    "fp16 without a GPU": ({"precision": "fp16"}, "precision: fp16 needs a CUDA GPU"),
    "an unknown loss": ({"losses__adversarial": "lsgn"}, "there is no 'lsgn'; did you mean 'lsgan'?"),
    "an unknown network": ({"generator__name": "resnett"}, "did you mean 'resnet'?"),
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="fp16 works here")
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_written(what, tiny, here, monkeypatch):
    changes, message = REFUSED[what]
    changes = dict(changes)
    (here / "there").mkdir()
    (here / "there" / "config.yaml").write_text("size: 32\n")
    if changes.pop("processes", None):
        monkeypatch.setattr(Accelerator, "num_processes", property(lambda self: 2))
    with pytest.raises(BadInput) as caught:
        train(tiny(**changes))
    assert message in str(caught.value)
    assert not (here / "runs").exists()


def test_another_network_cannot_go_on(tiny, here):
    train(tiny(run_dir=here / "run"))
    with pytest.raises(BadInput, match=r"^generator\.filters: the checkpoint was made with 8, not 4"):
        train(tiny(resume=str(here / "run"), steps=6, generator__filters=4))
    with pytest.raises(
        BadInput, match="its G_AB is another network .* go on without another generator.filters, or"
    ):
        train(tiny(resume=str(here / "run"), steps=6, resume_with=("generator.filters=4",)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks about CPUs")
def test_auto_precision_asks_the_processor(tmp_path):
    (tmp_path / "with").write_text("flags : fpu avx512f avx512_bf16 amx_tile")
    (tmp_path / "without").write_text("flags : fpu avx512f")
    assert precision.cpu_has_bf16(tmp_path / "with")
    assert not precision.cpu_has_bf16(tmp_path / "without")
    assert not precision.cpu_has_bf16(tmp_path / "nowhere")
    assert precision.resolve_precision("auto") == ("bf16" if precision.cpu_has_bf16() else "no")
    assert precision.resolve_precision("no") == "no"


@pytest.mark.parametrize(
    ("limit", "bf16", "amx"),
    [
        ("", True, True),
        ("AVX2", False, False),
        ("avx512_core_vnni", False, False),
        ("AVX512_CORE_BF16", True, False),
        ("AVX512_CORE_FP16", True, False),
        ("AVX512_CORE_AMX", True, True),
        ("ALL", True, True),
    ],
)
def test_what_onednn_is_kept_from_does_not_count(limit, bf16, amx, tmp_path, monkeypatch):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags : fpu avx512f avx512_bf16 amx_bf16")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert deployed.cpu_has_bf16(cpuinfo) == bf16
    assert deployed.cpu_has_amx(cpuinfo) == amx


@pytest.mark.parametrize(
    "length", [{"steps": 9}, {"steps": None, "images": 18}, {"steps": None, "epochs": 1}]
)
def test_pretraining_that_would_be_the_whole_run_is_refused(tiny, here, length):
    settings = tiny(pretrain={"steps": 99, "patch": 8}, run_dir=here / "run", **length)
    with pytest.raises(
        BadInput, match=r"pretrain\.steps \(99\) are part of the run's \d+ steps, and leave none"
    ):
        train(settings)
    assert not (here / "run").exists()


def test_a_clock_that_ends_within_pretraining_is_told_of(tiny, capsys):
    settings = {"steps": None, "minutes": 0.01, "evaluation": {"every": 1}}
    run = train(tiny(pretrain={"steps": 10**6, "patch": 8}, **settings)).run
    assert "complete masked pictures, and translate nothing" in capsys.readouterr().err
    assert not run.best.exists() and not (run.folder / "evaluations.jsonl").exists()


@pytest.mark.parametrize(
    "chosen", [{"layers": 5}, {"name": "multiscale", "layers": 2}, {"name": "batch_statistics", "layers": 4}]
)
def test_a_discriminator_too_large_for_its_images_is_refused(tiny, here, chosen):
    words = rf"size: must be \d+ or more for the discriminator '{chosen.get('name', 'patchgan')}'"
    with pytest.raises(BadInput, match=words):
        train(tiny(discriminator={"filters": 8, **chosen}, run_dir=here / "run"))
    assert not (here / "run").exists()
