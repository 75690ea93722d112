"""One generator, many renderings: a run with references, and translate --reference."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cyclegan import Translator
from cyclegan.artifacts import load_generator
from cyclegan.cli import main
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.images import read_image, resize, to_tensor
from cyclegan.training.checkpoint import checkpoints, read_checkpoint
from cyclegan.training.train import train
from cyclegan.translation.reference import reference_backend

MODNET = {"name": "modnet", "filters": 4, "depth": 2, "features": 16, "heads": 2, "blocks": 1}
RECIPE = {
    "generator": {**MODNET, "style": "reference"},
    "discriminator": {"name": "batch_statistics", "filters": 4, "layers": 2, "spectral_norm": True},
    "losses": {"diff_augment": ("color", "translation"), "lambda_zero_centred": 1.0},
    "pretrain": {"steps": 2, "patch": 8},
    "optimizer": {"lr": 2e-3, "schedule": "cosine", "warmup_steps": 2},
}


@pytest.fixture
def trained(tiny):
    return train(tiny(steps=4, **RECIPE)).run


@pytest.fixture
def pictures(tmp_path):
    """A picture to translate and two references, one light and one dark."""
    draw = np.random.default_rng(0)
    for name, level in (("picture", 128), ("light", 230), ("dark", 20)):
        noise = draw.integers(-20, 20, (40, 36, 3))
        Image.fromarray((level + noise).clip(0, 255).astype(np.uint8)).save(tmp_path / f"{name}.png")
    return tmp_path


def awake(folder):
    """After four steps everything is grey still; with weights of some size, a style is to be seen."""
    path, draw = folder / "model.safetensors", torch.Generator().manual_seed(0)
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if tensor.ndim > 1:
            tensors[name] = torch.randn(tensor.shape, generator=draw) * 1.5 * tensor[0].numel() ** -0.5
        elif name.endswith("gate"):
            tensors[name] = torch.tensor(1.0)
    save_file(tensors, path, metadata={"format": "pt"})
    return folder


def test_a_run_goes_on_exactly_with_its_queues_after_pretraining(tiny):
    whole = train(tiny(steps=6, run_dir="whole", **RECIPE)).run
    cut = train(tiny(steps=6, run_dir="cut", checkpoint__every=3, **RECIPE)).run
    for folder in checkpoints(cut.checkpoints):
        if folder.name != "step-00000003":
            (folder / "progress.json").unlink()  # as if it had been stopped before
    train(tiny(steps=6, run_dir="cut", resume="cut", **RECIPE))
    states = [read_checkpoint(checkpoints(run.checkpoints)[-1])[0] for run in (whole, cut)]
    assert len(states[0]["queues"]["fake_b"]) == 3
    for kind, queue in states[0]["queues"].items():
        assert torch.equal(queue, states[1]["queues"][kind])
    for name in ("G_AB", "D_B"):
        for key, value in states[0][name].items():
            assert torch.equal(value, states[1][name][key]), key


def test_how_many_samples_are_shown_has_no_say_in_the_style(tiny):
    codes = []
    for count in (1, 5):
        run = train(tiny(run_dir=f"shows {count}", samples__count=count, **RECIPE)).run
        codes.append(load_generator(run.generator("G_AB"))[0].style_code)
    assert torch.equal(*codes)


def test_a_generator_is_saved_with_the_mean_style_of_its_target(trained):
    network, config = load_generator(trained.generator("G_AB"))
    assert config.network.arguments["style"] == "reference"
    assert float(network.style_code.std()) > 0.1  # zeros, were it not set
    other, _ = load_generator(trained.generator("G_BA"))
    assert not torch.equal(network.style_code, other.style_code)


def exit_status(*command):
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in command])
    return ended.value.code


def translated(generator, pictures, reference=None):
    target = pictures / f"out-{reference}"
    arguments = [str(generator), str(pictures / "picture.png"), str(target / "picture.png")]
    more = ["--reference", str(pictures / f"{reference}.png")] if reference else []
    assert exit_status("translate", *arguments, "--precision", "fp32", *more) == 0
    return np.asarray(Image.open(target / "picture.png")).astype(int), target / "picture.png"


def test_references_give_different_renderings_and_are_recorded(trained, pictures, capsys):
    generator = awake(trained.generator("G_AB"))
    light, path = translated(generator, pictures, "light")
    dark, _ = translated(generator, pictures, "dark")
    mean, bare = translated(generator, pictures)
    assert light.shape == (40, 36, 3)
    assert np.abs(light - dark).mean() > 1 and np.abs(light - mean).mean() > 0.1
    capsys.readouterr()
    assert exit_status("inspect", path, bare, "--json") == 0
    with_it, without = json.loads(capsys.readouterr().out)["files"]
    assert with_it["label"]["settings"]["reference"] == sha256_of(pictures / "light.png")
    assert "reference" not in without["label"]["settings"]


def test_a_folder_made_with_another_reference_is_not_taken_for_done(trained, pictures, capsys):
    generator, source, target = str(trained.generator("G_AB")), pictures / "in", pictures / "out"
    source.mkdir()
    (pictures / "picture.png").rename(source / "picture.png")
    command = ["translate", generator, str(source), str(target), "--reference"]
    assert exit_status(*command, pictures / "light.png") == 0
    line = json.loads((target / "manifest.jsonl").read_text())
    assert line["settings"]["reference"] == sha256_of(pictures / "light.png")
    assert exit_status(*command, pictures / "light.png") == 0
    capsys.readouterr()
    assert exit_status(*command, pictures / "dark.png") == 2
    assert "other settings" in capsys.readouterr().err


def test_what_takes_no_reference_says_so(trained, generator, pictures):
    reference = pictures / "light.png"
    with pytest.raises(BadInput, match="--reference: .* takes no picture beside its input"):
        Translator.from_pretrained(generator, "cpu", reference=reference)
    with pytest.raises(BadInput, match="--reference: needs --backend torch"):
        Translator.from_pretrained(trained.generator("G_AB"), "cpu", backend="onnx", reference=reference)
    with pytest.raises(BadInput, match=r"--reference: .* is a folder; name one picture"):
        Translator.from_pretrained(trained.generator("G_AB"), "cpu", reference=str(pictures))
    with pytest.raises(BadInput, match="nothing.png"):
        Translator.from_pretrained(trained.generator("G_AB"), "cpu", reference=pictures / "nothing.png")


@pytest.mark.parametrize("preset", ["crop", "resize_and_crop"])
def test_a_picture_whose_style_is_taken_is_as_large_as_training_saw_it(preset, tiny, tmp_path):
    """Strokes are as broad then; squeezed to the training size, those of crops would count as finer."""
    settings = tiny(steps=3, augment={"preset": preset}, **RECIPE)
    generator = train(settings).run.generator("G_AB")
    network, config = load_generator(generator)
    assert (config.scale.preset, config.scale.size) == (preset, settings.size)

    def code(pixels):
        if preset == "resize_and_crop":
            pixels = resize(pixels, settings.load_size, settings.load_size)
        with torch.no_grad():
            return network.style_of(to_tensor(np.ascontiguousarray(pixels))[None])[0]

    stripes = np.zeros((70, 90, 3), np.uint8)
    stripes[:, ::3] = 255
    Image.fromarray(stripes).save(tmp_path / "stripes.png")
    backend = reference_backend(generator, "torch", "fp32", None, tmp_path / "stripes.png")
    torch.testing.assert_close(backend.network.style_code, code(stripes), atol=1e-4, rtol=1e-4)

    targets = sorted((settings.data.root / "trainB").iterdir())
    eight = [targets[i * len(targets) // 8] for i in range(8)]
    codes = [code(read_image(path, 3, (255, 255, 255)).pixels) for path in eight]
    torch.testing.assert_close(network.style_code, torch.stack(codes).mean(dim=0), atol=1e-4, rtol=1e-4)


def test_a_reference_with_too_few_pixels_is_refused_in_words(tiny, pictures, capsys):
    generator = train(tiny(steps=3, augment={"preset": "crop"}, **RECIPE)).run.generator("G_AB")
    Image.new("RGB", (9, 40)).save(pictures / "narrow.png")
    source, target = pictures / "picture.png", pictures / "out.png"
    status = exit_status("translate", generator, source, target, "--reference", pictures / "narrow.png")
    assert status == 2 and not target.exists()
    assert "narrow.png: 9x40 pixels are too few" in capsys.readouterr().err
