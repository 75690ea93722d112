"""The watch on a discriminator that has won and on generators that collapsed or invert colours."""

import pytest
import torch
from torch import nn

from cyclegan.images import read_image, resize, to_tensor
from cyclegan.training import watch
from cyclegan.training.loop import Trainer
from cyclegan.training.sampling import Samples
from cyclegan.training.step import TrainingStep
from cyclegan.training.train import train
from cyclegan.training.watch import LONG, Watch, similarity, spread


@pytest.fixture
def images(small_domain):
    def load(split):
        paths = sorted((small_domain / split).iterdir())[:6]
        return torch.stack([to_tensor(resize(read_image(path).pixels, 32, 32)) for path in paths])

    return load


@pytest.mark.parametrize(
    "loss, low, high", [("lsgan", 0.007, 0.01), ("vanilla", 0.02, 0.03), ("hinge", 0.02, 0.04)]
)
def test_a_discriminator_that_wins_for_long_is_named_once(tiny, loss, low, high):
    said = []
    look = Watch(tiny(log_every=100, losses__adversarial=loss), lambda what, words: said.append(words))
    for step in range(100, 900, 100):
        look.losses({"D_A": low, "D_B": high}, step)
    look.losses({"D_A": high, "D_B": high}, 900)  # it lost for a while: begin anew
    for step in range(1000, 1900, 100):
        look.losses({"D_A": low, "D_B": high}, step)
    assert said == []
    for step in range(1900, 4000, 100):
        look.losses({"D_A": low, "D_B": high}, step)
    (words,) = said
    assert words.startswith("D_A has won: ") and "for 1000 steps" in words
    assert "--optimizer.lr-discriminator 5e-05 (now 0.0002) or --losses.lambda-r1 1 (now 0)" in words


def test_a_loss_that_is_a_sum_over_scales_is_held_to_as_much_more(tiny):
    said = []
    look = Watch(tiny(log_every=100), lambda what, words: said.append(words), scales=3)
    for step in range(100, 1300, 100):
        look.losses({"D_A": 3 * 0.007, "D_B": 3 * 0.01}, step)
    (words,) = said
    assert words.startswith("D_A has won: its loss was below 0.022 (undecided: 0.75)")


def test_a_trainer_tells_its_watch_how_many_scales_there_are(tiny, here):
    for judge, scales in (({"name": "multiscale", "layers": 1, "scales": 2}, 2), ({"name": "patchgan"}, 1)):
        assert Trainer(tiny(discriminator={"filters": 4, **judge})).watch.scales == scales


def test_a_resumed_run_is_warned_once_and_its_steps_before_the_resume_count(tiny):
    def watch(said):
        return Watch(tiny(log_every=100), lambda what, words: said.append(what))

    log = [{"step": step, "D_A": 0.001, "D_B": 1.0} for step in range(100, 1000, 100)]
    said = []
    look = watch(said)
    look.go_on(log, set())
    assert said == []
    look.losses(log[0], 1000)
    assert said == ["D_A wins"]
    again = watch(said)
    again.go_on([*log, {**log[0], "step": 1000}], {"D_A wins"})
    again.losses(log[0], 1100)
    assert said == ["D_A wins"]


def test_a_distance_has_no_zero_to_win_at(tiny):
    said = []
    look = Watch(tiny(losses__adversarial="wgan-gp", log_every=100), lambda what, words: said.append(words))
    for step in range(100, 4000, 100):
        look.losses({"D_A": -50.0, "D_B": 0.0}, step)
    assert said == []


def test_outputs_that_are_all_alike_are_a_collapse(tiny, images):
    said = []
    look = Watch(tiny(), lambda what, words: said.append(words))
    real_a, real_b = images("testA"), images("testB")
    one = real_b[:1].expand_as(real_b) + 0.01 * real_a
    look.outputs("AtoB", real_a, one, real_b, LONG - 1)
    look.outputs("AtoB", real_a, real_b, real_b, LONG)
    look.outputs("BtoA", real_b, real_a, real_a, LONG)
    assert said == []
    for step in (LONG, LONG + 1):
        look.outputs("AtoB", real_a, one, real_b, step)
    (words,) = said
    assert (
        "G_AB has collapsed: what it makes of 6 different images differs by 1% of what real images of B do"
        in words
    )
    assert "--losses.lambda-adversarial-ab 0.5 (now 1)" in words


def test_inverted_colours_are_named_with_the_identity_loss_that_holds_them(tiny, images):
    said = []
    look = Watch(
        tiny(losses={"lambda_identity_a": 0, "lambda_identity_b": 5}), lambda what, words: said.append(words)
    )
    real_a, real_b = images("testA"), images("testB")
    look.outputs("AtoB", real_a, -real_a, real_b, LONG)
    look.outputs("BtoA", real_b, -real_b, real_a, LONG)
    assert "G_AB inverts colours" in said[0] and "--losses.lambda-identity-b 10 (now 5)" in said[0]
    assert "G_BA inverts colours" in said[1] and "--losses.lambda-identity-a 5 (now 0)" in said[1]


def test_a_remedy_is_not_what_is_on_already(tiny, images):
    said = []
    real_a, real_b = images("testA"), images("testB")
    for method, nce in (("cut", {}), ("cut", {"identity": False}), ("fastcut", {})):
        look = Watch(tiny(method=method, nce=nce), lambda what, words: said.append(words))
        look.outputs("AtoB", real_a, -real_a, real_b, LONG)
    assert "--nce.weight 2 (now 1)" in said[0]
    assert "--nce.identity True" in said[1] and "--nce.identity True" in said[2]


def test_spread_and_similarity_are_their_formulas():
    images = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert spread(images) == pytest.approx(0.5**0.5)
    ramp = torch.arange(16.0).view(1, 1, 4, 4)
    assert similarity(ramp, 3 * ramp + 1) == pytest.approx(1)
    assert similarity(ramp, -ramp) == pytest.approx(-1)
    assert similarity(ramp, torch.zeros_like(ramp)) == 0


class Inverse(nn.Module):
    def forward(self, x):
        return -x


def test_a_run_warns_once(tiny, monkeypatch, capsys):
    """A real run whose generators do both: the warnings come from its own log and its own grids."""
    monkeypatch.setattr(watch, "LONG", 2)
    plain = TrainingStep.__call__

    def step(self, parts, factor):
        losses = plain(self, parts, factor)
        return {**losses, "D_B": losses["D_B"] * 0 + 0.001}

    monkeypatch.setattr(TrainingStep, "__call__", step)
    grid, inverse = Samples.grid, {"G_AB": Inverse(), "G_BA": Inverse()}
    monkeypatch.setattr(Samples, "grid", lambda self, networks, autocast: grid(self, inverse, autocast))
    train(tiny(steps=8, log_every=1, samples__every=2))
    said = capsys.readouterr().err
    assert said.count("D_B has won") == 1 and said.count("D_A has won") == 0
    assert said.count("G_AB inverts colours") == said.count("G_BA inverts colours") == 1
