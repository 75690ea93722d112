"""--resume-with: a run that goes on with other settings takes up what still holds, and no more."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from poison import poison

from cyclegan.errors import BadInput
from cyclegan.training.changes import with_meant
from cyclegan.training.checkpoint import checkpoints, read_checkpoint
from cyclegan.training.perceptual import Perceptual
from cyclegan.training.train import train


def test_resume_with_changes_what_it_names(tiny):
    settings = with_meant(tiny(resume="latest", resume_with=("optimizer.lr=1e-3", "batch-size=4")))
    assert (settings.optimizer.lr, settings.batch_size) == (1e-3, 4)


def steps_with(folder, key):
    lines = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return [line["step"] for line in lines if key in line]


def test_a_batch_of_another_size_brings_no_pretraining_back(tiny, here):
    """Steps are counted, not worked out of the images that were shown."""
    shared = {"run_dir": here / "run", "pretrain": {"steps": 4, "patch": 8}, "log_every": 1}
    train(tiny(steps=6, batch_size=2, **shared))
    train(tiny(steps=8, batch_size=8, resume="latest", resume_with=("batch_size=8",), **shared))
    assert steps_with(here / "run", "completion_ab") == [1, 2, 3, 4]
    assert steps_with(here / "run", "cycle_a") == [5, 6, 7, 8]


@pytest.mark.parametrize(
    "change", ["size=24", "losses.style_layers=[relu3_1]", "losses.style_picture_b=red.png"]
)
def test_what_was_kept_for_other_settings_is_not_gone_on_with(change, tiny, here, monkeypatch):
    """Pools of another size, and the style of another picture or of other layers."""
    for colour in ("green", "red"):
        Image.new("RGB", (64, 64), colour).save(here / f"{colour}.png")
    pictures = {"lambda_style": 1.0, "style_picture_b": Path("green.png"), "style_layers": ["relu1_1"]}
    train(tiny(run_dir=here / "run", pool_size=2, losses=pictures))
    learned = []
    learn = Perceptual.learn
    monkeypatch.setattr(
        Perceptual, "learn", lambda self, side, of: learned.append(side) or learn(self, side, of)
    )
    changed = with_meant(
        tiny(pool_size=2, losses=pictures, steps=8, resume=str(here / "run"), resume_with=(change,))
    )
    run = train(changed).run
    expected = ["B"] if "picture" in change else ["A", "B"]
    assert learned == expected
    state, _ = read_checkpoint(checkpoints(run.checkpoints)[-1])
    assert list(state["styles"]["B"]) == list(changed.losses.style_layers)
    if "red" in change:  # VGG-19's first layer tells them apart
        before, _ = read_checkpoint(checkpoints(run.checkpoints)[0])
        assert not torch.allclose(before["styles"]["B"]["relu1_1"], state["styles"]["B"]["relu1_1"], rtol=0.1)
    assert {image.shape[-1] for image in state["pool_b"]} == {changed.size}


@pytest.mark.parametrize("change", ["size=24", "losses.style_layers=[relu3_1]"])
def test_a_setback_to_before_a_change_leaves_out_the_same(change, tiny, here, monkeypatch):
    shared = {"pool_size": 2, "losses": {"lambda_style": 1.0, "style_layers": ["relu1_1"]}}
    train(tiny(run_dir=here / "run", **shared))
    poison(monkeypatch, lambda call: call in (1, 2))
    resumed = tiny(steps=8, resume=str(here / "run"), resume_with=(change,), numbers={"refused": 2}, **shared)
    run = train(resumed).run
    state, progress = read_checkpoint(checkpoints(run.checkpoints)[-1])
    assert progress.step == 8
    assert list(state["styles"]["B"]) == (["relu1_1"] if "size" in change else ["relu3_1"])


@pytest.mark.parametrize(
    "item, message",
    [
        ("optimizer.lr", "'optimizer.lr' is not of the form key=value"),
        ("optimizer.rl=1", "there is no setting 'optimizer.rl'; did you mean 'optimizer.lr'"),
        ("generator=unet", "there is no setting 'generator'"),
        ("optimizer.lr=fast", "resume_with: optimizer.lr: .* not 'fast'"),
    ],
)
def test_resume_with_says_what_is_wrong(tiny, item, message):
    with pytest.raises(BadInput, match=message):
        with_meant(tiny(resume="latest", resume_with=(item,)))


def test_resume_with_alone_means_nothing(tiny):
    with pytest.raises(BadInput, match="it goes with --resume"):
        train(tiny(resume_with=("size=64",)))
