"""--resume-with: a run that goes on with other settings takes up what still holds, and no more."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from poison import poison
from test_rights import ZERO
from test_rights_packets import packet

from cyclegan.datasets.domain import Domain
from cyclegan.errors import BadInput
from cyclegan.training.changes import with_meant
from cyclegan.training.checkpoint import Progress, checkpoints, read_checkpoint
from cyclegan.training.loop import Trainer
from cyclegan.training.perceptual import Perceptual
from cyclegan.training.pictures import with_earlier
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


def test_other_betas_are_adams_own(tiny, here):
    shared = {"run_dir": here / "run"}
    train(tiny(steps=2, **shared))
    meant = ("optimizer.beta1=0.9", "optimizer.beta2=0.99")
    changed = {"optimizer": {"beta1": 0.9, "beta2": 0.99}}
    trainer = Trainer(tiny(steps=4, resume="latest", resume_with=meant, **changed, **shared))
    for optimizer in (trainer.step.optimizer_G, trainer.step.optimizer_D):
        assert all(tuple(group["betas"]) == (0.9, 0.99) for group in optimizer.param_groups)
        assert all(values["step"] == 2 for values in optimizer.state.values())


def test_parts_change_what_is_learned_where_batch_norm_sees_each_by_itself(tiny, here, capsys):
    for number, (norm, refused) in enumerate((("instance", False), ("batch", True))):
        shared = {"run_dir": here / str(number), "generator": {"filters": 4, "blocks": 1, "norm": norm}}
        train(tiny(steps=2, batch_size=2, **shared))
        parts = tiny(steps=4, batch_size=2, gradient_accumulation=2, resume="latest", **shared)
        assert "each part" not in capsys.readouterr().err
        if refused:
            with pytest.raises(
                BadInput, match="gradient_accumulation: .*--resume-with gradient_accumulation=2"
            ):
                train(parts)
            meant = {"resume_with": ("gradient_accumulation=2",)}
            train(tiny(steps=4, batch_size=2, gradient_accumulation=2, resume="latest", **meant, **shared))
            assert "norm batch takes its statistics of each part" in capsys.readouterr().err
        else:
            train(parts)


def test_tags_of_a_tracker_change_nothing_that_is_learned(tiny, here):
    train(tiny(steps=2, run_dir=here / "run"))
    train(tiny(steps=3, run_dir=here / "run", resume="latest", tracking={"tags": ("again",)}))


def test_pictures_that_a_run_had_before_bind_it(tiny, here, small_domain, photograph):
    """Weights keep what they learned, and say so, whatever pictures are there at the end."""
    data, free = free_pictures(here, photograph), here / "free"
    shared = {"run_dir": here / "run", "resume": "latest"}
    train(tiny(steps=2, run_dir=here / "run"))
    with pytest.raises(
        BadInput, match="require_license: before, .* pictures of A under unknown, and that stays"
    ):
        train(tiny(steps=3, data=data, require_license="CC0-1.0", **shared))
    train(tiny(steps=3, data=data, **shared))
    config = json.loads((here / "run" / "generators" / "G_AB" / "config.json").read_text())
    assert config["licences"] == {"A": "unknown", "B": "unknown"}
    # Of two audited lists both are named.
    train(tiny(steps=2, data=data, require_license="CC0-1.0", run_dir=here / "both"))
    for side in "AB":
        path = photograph(
            f"more{side}.jpg", size=(40, 40), xmp=licensed("https://creativecommons.org/licenses/by/4.0/")
        )
        path.rename(free / side / path.name)
        (free / side / f"{side}0.jpg").unlink()
    both = {"require_license": "CC0-1.0,CC-BY-4.0", "run_dir": here / "both", "resume": "latest"}
    train(tiny(steps=3, data=data, **both))
    about = json.loads((here / "both" / "about.json").read_text())
    assert about["licences"]["A"] == "CC-BY-4.0 AND CC0-1.0"


def test_licences_of_earlier_pictures_bind_every_later_leg(tiny, here, photograph):
    """The second resume has the pictures of the first: what was there before those still counts."""
    free = free_pictures(here, photograph)
    train(tiny(steps=2, run_dir=here / "run"))
    shared = {"data": free, "run_dir": here / "run", "resume": "latest"}
    for steps in (3, 4):
        config = json.loads(
            (train(tiny(steps=steps, **shared)).run.generator("G_AB") / "config.json").read_text()
        )
        assert config["licences"] == {"A": "unknown", "B": "unknown"}
        with pytest.raises(BadInput, match="require_license: before, .* pictures of A under unknown"):
            train(tiny(steps=5, require_license="CC0-1.0", **shared))
    # Pictures that were there all the time are looked at now, whether or not anybody asked before.
    train(tiny(steps=2, data=free, run_dir=here / "same"))
    run = train(tiny(steps=3, require_license="CC0-1.0", **{**shared, "run_dir": here / "same"})).run
    assert json.loads((run.folder / "about.json").read_text())["licences"] == {"A": "CC0-1.0", "B": "CC0-1.0"}


def test_checkpoints_that_do_not_tell_earlier_pictures_are_taken_at_their_strictest(tmp_path):
    rights = {"licences": {"A": "CC-BY-4.0", "B": "unknown"}, "attribution": {"A": "Jo"}}
    now = {"A": (1, "a"), "B": (1, "b")}
    domain = Domain("x", [], [], [], [])
    old = Progress(pictures=now, rights=rights)
    assert with_earlier(domain, old, now, None).earlier_licences == rights["licences"]
    known = replace(old, earlier={"licences": {"A": "MIT"}, "attribution": {}})
    assert with_earlier(domain, known, now, "MIT").earlier_licences == {"A": "MIT"}
    other = with_earlier(domain, known, {**now, "styleA": (1, "s")}, None)
    assert (other.earlier_licences, other.earlier_attribution) == ({"A": "CC-BY-4.0"}, {"A": "Jo"})
    with pytest.raises(BadInput, match="of B under CC0-1.0 for some"):
        some = {"licences": {"B": "CC0-1.0 for some"}, "attribution": {}}
        with_earlier(domain, replace(old, earlier=some), now, "CC0-1.0")


def test_a_style_picture_stays_in_the_weights(tiny, here, photograph):
    """One whose rights are reserved binds after another has come in its place."""
    free = free_pictures(here, photograph)
    reserved = packet("<dc:rights>© Jo, all rights reserved</dc:rights><dc:creator>Jo</dc:creator>")
    photograph("reserved.jpg", size=(64, 64), xmp=reserved)
    photograph("free.jpg", size=(64, 64), xmp=licensed(ZERO))
    style = {"lambda_style": 1.0, "style_picture_b": Path("reserved.jpg"), "style_layers": ["relu1_1"]}
    run = train(tiny(steps=2, data=free, run_dir=here / "run", losses=style)).run
    config = json.loads((run.generator("G_AB") / "config.json").read_text())
    assert config["licences"]["B"] == "unknown" and config["attribution"]["B"] == "Jo"
    meant = {"resume": "latest", "resume_with": ("losses.style_picture_b=free.jpg",)}
    shared = {"data": free, "run_dir": here / "run", "losses": style}
    for steps in (3, 4):
        with pytest.raises(BadInput, match="before, the run learned from pictures of B under unknown"):
            train(tiny(steps=steps, require_license="CC0-1.0", **meant, **shared))
        run = train(tiny(steps=steps, **meant, **shared)).run
        about = json.loads((run.folder / "about.json").read_text())
        assert about["licences"]["B"] == "unknown" and "Jo" in about["attribution"]["B"]
    assert "another picture for the style of B" in (run.folder / "warnings.jsonl").read_text()


def free_pictures(here, photograph):
    """Folders of pictures that say that they are under CC0."""
    for side in "AB":
        (here / "free" / side).mkdir(parents=True, exist_ok=True)
        for number in range(3):
            path = photograph(f"{side}{number}.jpg", size=(48, 48 + number), xmp=licensed(ZERO))
            path.rename(here / "free" / side / path.name)
    return {"a": here / "free" / "A", "b": here / "free" / "B"}


def licensed(address):
    return packet(f'<cc:license rdf:resource="{address}"/>')


def test_pretraining_ends_where_a_run_is_or_later(tiny, here):
    """For Adam begins anew where it ends: behind the run that would never come."""
    saves = {"checkpoint__every": 2, "checkpoint__keep": 4}
    train(tiny(steps=6, pretrain={"steps": 4, "patch": 8}, run_dir=here / "run", **saves))
    shutil.rmtree(here / "run" / "checkpoints" / "step-00000006")
    shutil.rmtree(here / "run" / "checkpoints" / "step-00000004")

    def gone_on(to, steps=4):
        meant = (f"pretrain.steps={to}",)
        chosen = {"pretrain": {"steps": to, "patch": 8}, "resume": str(here / "run"), "resume_with": meant}
        return train(tiny(steps=steps, **saves, **chosen)).run.folder

    with pytest.raises(BadInput, match=r"at step 2, is past 1; to end .* --resume-with pretrain.steps=2"):
        gone_on(1)
    state = torch.load(gone_on(2) / "checkpoints" / "step-00000004" / "state.pt", weights_only=True)
    assert {int(each["step"]) for each in state["optimizer_G"]["state"].values()} == {2}
    with pytest.raises(BadInput, match="at step 4, is past its 2; leave it so"):
        gone_on(8, steps=10)
