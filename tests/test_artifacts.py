"""A generator's folder: what goes in comes out, and what is wrong with one is named."""

import json

import pytest
import torch
from generators import generator_config

from cyclegan.artifacts import NetworkConfig, load_generator, save_generator
from cyclegan.artifacts import generator as artifacts
from cyclegan.errors import BadInput
from cyclegan.networks import build
from cyclegan.networks.layers import initialize

ARGUMENTS = {"channels": 3, "filters": 4, "blocks": 1, "norm": "instance", "upsample": "resize"}


@pytest.fixture
def saved(tmp_path):
    network = initialize(build("generator", "resnet", ARGUMENTS))
    config = generator_config(
        network=NetworkConfig(name="resnet", arguments=ARGUMENTS),
        domain="mine",
        source="cats",
        target="dogs",
        card_sha256=None,
        licences={"A": "CC0-1.0", "B": "unknown"},
        steps=10,
        images_seen=20,
    )
    save_generator(tmp_path / "G_AB", network.state_dict(), config)
    return tmp_path / "G_AB", network, config


def test_what_is_saved_is_loaded(saved):
    folder, network, config = saved
    loaded, found = load_generator(folder)
    assert found == config
    images = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded(images), network.eval()(images))


def test_a_second_save_replaces_the_first(saved):
    folder, network, config = saved
    torch.nn.init.ones_(next(network.parameters()))
    save_generator(folder, network.state_dict(), config)
    assert torch.equal(next(load_generator(folder)[0].parameters()), next(network.parameters()))
    assert [p.name for p in folder.parent.iterdir()] == ["G_AB"]


def test_a_save_that_fails_leaves_the_older_one(saved, monkeypatch):
    folder, network, config = saved
    plain = artifacts.Path.rename

    def full(self, target):
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return plain(self, target)

    monkeypatch.setattr(artifacts.Path, "rename", full)
    with pytest.raises(OSError, match="No space left"):
        save_generator(folder, network.state_dict(), config)
    assert load_generator(folder)[1] == config
    assert [p.name for p in folder.parent.iterdir()] == ["G_AB"]


def test_the_model_card_says_what_it_rests_on(saved):
    card = (saved[0] / "README.md").read_text()
    for words in ("cats to dogs", "CC0-1.0", "unknown", "AtoB", "made by a machine", "20 images of A"):
        assert words in " ".join(card.replace("\n", " ").split())


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def shorten(path):
    path.write_bytes(path.read_bytes()[:-50])


BROKEN = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "has no model.safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "damaged weights": (lambda f: shorten(f / "model.safetensors"), "model.safetensors: is damaged"),
    "text as config": (lambda f: (f / "config.json").write_text("hello"), "config.json: "),
    "an unknown key": (lambda f: edit(f, sise=3), "unknown key 'sise'; did you mean 'size'?"),
    "a wrong value": (lambda f: edit(f, channels=7), "channels: input should be 1 or 3, not 7"),
    "another network": (
        lambda f: edit(f, network={"name": "resnet", "arguments": {**ARGUMENTS, "blocks": 2}}),
        "model.safetensors: does not fit config.json",
    ),
    "an unknown network": (
        lambda f: edit(f, network={"name": "transformer", "arguments": {}}),
        "there is no 'transformer'",
    ),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_generators_are_named_in_one_line(saved, what):
    damage, message = BROKEN[what]
    damage(saved[0])
    with pytest.raises(BadInput) as caught:
        load_generator(saved[0])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_folder(tmp_path):
    with pytest.raises(BadInput, match="nowhere: no such folder"):
        load_generator(tmp_path / "nowhere")
