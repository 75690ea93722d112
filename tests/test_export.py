"""Exported generators: opened by other programs, they give what torch gives."""

import functools
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.artifacts import GeneratorConfig, NetworkConfig, export, load_generator, save_generator
from cyclegan.artifacts.export import export_generator
from cyclegan.cli import main
from cyclegan.errors import BadInput
from cyclegan.networks import build
from cyclegan.networks.layers import initialize

onnx = pytest.importorskip("onnx", reason="the extra export is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="the extra export is not installed")
pytest.importorskip("onnxscript", reason="the extra export is not installed")

NETWORKS = {
    "instance": {"filters": 4, "blocks": 1},
    "batch": {"filters": 4, "blocks": 1, "norm": "batch", "upsample": "resize", "residual": True},
    "coarse": {"filters": 4, "blocks": 1, "residual": "coarse"},
}


def save(folder, kind):
    """A generator with weights of some size; batch norm has seen images."""
    network = initialize(build("generator", "resnet", NETWORKS[kind]), std=0.3)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches
    network.train()(torch.randn(4, 3, 32, 32))
    config = GeneratorConfig(
        network=NetworkConfig(name="resnet", arguments=NETWORKS[kind]),
        channels=3, size=48, multiple_of=4, domain="mine", direction="AtoB", source="cats",
        target="dogs", card_sha256=None, licences={"A": "CC0-1.0"}, seed=0, steps=10, images_seen=20,
    )  # fmt: skip
    save_generator(folder / kind, network.state_dict(), config)
    return folder / kind


@pytest.fixture
def generator(tmp_path):
    return save(tmp_path, "instance")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Exports once for all tests: the generator's folder and what was written."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def make(kind, suffix, precision="fp32"):
        source = folder / kind if (folder / kind).exists() else save(folder, kind)
        return source, export_generator(source, folder / precision / f"{kind}{suffix}", precision)

    return make


@pytest.fixture
def photographs(tmp_path):
    data = pytest.importorskip("skimage.data")
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name in ("astronaut", "coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()[:200, :240]).resize((60, 50)).save(folder / f"{name}.png")
    return folder


def run_onnx(path, images):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


@pytest.mark.parametrize("kind", NETWORKS)
def test_onnx_takes_any_batch_and_size_and_gives_what_torch_gives(exported, kind):
    folder, done = exported(kind, ".onnx")
    model = onnx.load(done.path)
    onnx.checker.check_model(model, full_check=True)
    network, config = load_generator(folder)
    for shape in [(1, 3, 64, 64), (2, 3, 20, 36), (5, 3, 100, 16)]:
        images = torch.rand(shape) * 2 - 1
        np.testing.assert_allclose(run_onnx(done.path, images), network(images).numpy(), atol=1e-4)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert GeneratorConfig.model_validate_json(metadata["cyclegan.config"]) == config
    assert metadata["cyclegan.precision"] == "fp32"
    names = [d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert names == ["batch", 3, "height", "width"]
    assert all(path.suffix == ".onnx" for path in done.path.parent.iterdir())


@pytest.mark.parametrize("kind", NETWORKS)
def test_torch_export_file(exported, kind):
    folder, done = exported(kind, ".pt2")
    extra = {"cyclegan.config": "", "cyclegan.precision": ""}
    module = torch.export.load(done.path, extra_files=extra).module()
    network, config = load_generator(folder)
    images = torch.rand(3, 3, 20, 64)
    assert torch.allclose(module(images), network(images), atol=1e-5)
    assert GeneratorConfig.model_validate_json(extra["cyclegan.config"]) == config
    assert extra["cyclegan.precision"] == "fp32"


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_files_tell_nothing_of_the_machine(exported, suffix):
    data = exported("instance", suffix)[1].path.read_bytes()
    assert b"site-packages" not in data and b"layers.py" not in data


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_half_precision_is_near_and_says_how_near(exported, suffix):
    folder, half = exported("instance", suffix, "fp16")
    assert 0 < half.mean < half.largest < 0.1
    assert exported("instance", suffix)[1].largest < 1e-4
    if suffix == ".onnx":
        kinds = {t.data_type for t in onnx.load(half.path).graph.initializer if len(t.dims) == 4}
        assert kinds == {onnx.TensorProto.FLOAT16}
        images = torch.rand(2, 3, 32, 20) * 2 - 1
        truth = load_generator(folder)[0](images).numpy()
        assert 0 < np.abs(run_onnx(half.path, images) - truth).max() < 0.1


def test_int8_has_integer_weights_and_says_how_far_it_is(generator, tmp_path, photographs, capsys):
    folder, target = generator, tmp_path / "g8.onnx"
    words = [str(folder), str(target), "--precision", "int8", "--calibrate", str(photographs), "--json"]
    with pytest.raises(SystemExit) as ended:
        main(["export", *words])
    assert ended.value.code == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    kinds = [t.data_type for t in onnx.load(target).graph.initializer if len(t.dims) == 4]
    assert kinds.count(onnx.TensorProto.INT8) == len(kinds) - 2  # all but the first and the last convolution
    assert said["bytes"] == target.stat().st_size and said["precision"] == "int8"
    # The difference that it names is that on the picture that did not calibrate, computed here once more.
    pixels = Image.open(photographs / "astronaut.png").resize((48, 48), Image.Resampling.BOX)
    images = torch.from_numpy(np.asarray(pixels, np.float32) / 127.5 - 1).permute(2, 0, 1)[None].contiguous()
    difference = np.abs(run_onnx(target, images) - load_generator(folder)[0](images).numpy())
    assert 0 < said["difference"]["mean"] < 0.05
    assert difference.mean() == pytest.approx(said["difference"]["mean"], rel=0.3)


def test_a_file_that_differs_from_torch_is_not_written(generator, tmp_path, monkeypatch):
    other = initialize(build("generator", "resnet", NETWORKS["instance"]), std=0.3).eval()
    plain = export._program
    monkeypatch.setattr(export, "_program", lambda network, *rest: plain(other, *rest))
    (tmp_path / "out").mkdir()
    with pytest.raises(BadInput, match="not written, for at fp32 it is"):
        export_generator(generator, tmp_path / "out" / "g.pt2")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_network_may_narrow_to_one_pixel(generator):
    """As U-Nets do on their smallest images; torch.export would refuse that size afterwards."""
    layers = [torch.nn.Conv2d(3, 4, 4, 4), torch.nn.Conv2d(4, 4, 4, 4)]
    network = torch.nn.Sequential(*layers, torch.nn.ConvTranspose2d(4, 3, 16, 16)).eval()
    config = load_generator(generator)[1].model_copy(update={"multiple_of": 16})
    run = export._program(network, config, ".pt2").module()
    for shape in [(1, 3, 16, 16), (2, 3, 16, 48)]:
        images = torch.rand(shape)
        assert torch.allclose(run(images), network(images), atol=1e-6)


MISTAKES = {
    "GEN g.txt": "g.txt: must end with .onnx or .pt2",
    "GEN g.pt2 --precision int8": "int8 is for .onnx files",
    "GEN g.onnx --precision int8": "--calibrate: int8 needs a folder of images",
    "GEN g.onnx --calibrate GEN": "GEN: has no JPEG",
    "GEN g.onnx --precision fp8": "--precision: 'fp8' is none of",
    "GEN GEN.onnx": "GEN.onnx: is a folder; name a file",
    "GEN GEN/config.json/g.onnx": "cannot be written",
    "nowhere g.onnx": "nowhere: no such folder",
    "nowhere g.onnx --calibrate x": "nowhere: no such folder",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_get_one_line(generator, here, words, capsys):
    folder = generator
    (folder.parent / "instance.onnx").mkdir()
    with pytest.raises(SystemExit) as ended:
        main(["export", *words.replace("GEN", str(folder)).split()])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert MISTAKES[words].replace("GEN", str(folder)) in error
    assert len(error.splitlines()) == 1


def test_a_missing_package_is_named_with_the_remedy(generator, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(BadInput, match=r"needs onnxscript: pip install 'cyclegan\[export\]'"):
        export_generator(generator, tmp_path / "g.onnx")
