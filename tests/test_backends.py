"""The backends agree with torch at fp32, each as near as its precision allows."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from cyclegan import Translator
from cyclegan.artifacts import GeneratorConfig, NetworkConfig, load_generator, save_generator
from cyclegan.artifacts.export import cached_onnx
from cyclegan.cli import main
from cyclegan.errors import BadInput
from cyclegan.images import read_image
from cyclegan.networks import build, deployed
from cyclegan.networks.deployed import FastInstanceNorm, for_cpu
from cyclegan.networks.layers import initialize
from cyclegan.translation import backends, pipeline
from cyclegan.translation.backends import TorchBackend, open_backend, pick_backend
from cyclegan.translation.options import Tiling
from cyclegan.translation.tiling import strategy

# Largest and mean difference from torch at fp32 that each may have at 256 px, of values in [-1, 1].
TOLERANCES = {
    ("torch", "fp32"): (1e-4, 1e-5),
    ("torch", "bf16"): (0.15, 0.02),
    ("torch", "fp16"): (0.02, 0.002),
    ("onnx", "fp32"): (1e-4, 1e-5),
    ("openvino", "fp32"): (1e-4, 1e-5),
    ("openvino", "bf16"): (0.15, 0.02),
}
PACKAGES = {"torch": (), "onnx": ("onnx", "onnxscript", "onnxruntime")}
PACKAGES["openvino"] = (*PACKAGES["onnx"], "openvino")


def needs(backend):
    for package in PACKAGES[backend]:
        pytest.importorskip(package, reason=f"the extra for {package} is not installed")


@pytest.fixture(scope="module")
def generator(tmp_path_factory):
    arguments = {"filters": 8, "blocks": 2}
    torch.manual_seed(0)
    network = initialize(build("generator", "resnet", arguments))
    config = GeneratorConfig(
        network=NetworkConfig(name="resnet", arguments=arguments),
        channels=3, size=64, multiple_of=4, domain="mine", direction="AtoB", source="cats",
        target="dogs", card_sha256=None, licences={}, seed=0, steps=10, images_seen=20,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("backends") / "G_AB"
    save_generator(folder, network.state_dict(), config)
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(cache, monkeypatch):
    monkeypatch.setenv("CYCLEGAN_CACHE", str(cache))


@pytest.fixture(scope="module")
def astronaut():
    data = pytest.importorskip("skimage.data")
    return torch.from_numpy(data.astronaut() / np.float32(127.5) - 1).permute(2, 0, 1)[None].contiguous()


@pytest.mark.parametrize(("name", "precision"), TOLERANCES)
def test_each_backend_gives_what_the_plain_network_gives(generator, astronaut, name, precision):
    needs(name)
    network, config = load_generator(generator)
    backend = open_backend(generator, name, precision)
    assert backend.config == config
    assert (backend.name, backend.precision) == (name, precision)
    assert (
        backend.weights_sha256 == hashlib.sha256((generator / "model.safetensors").read_bytes()).hexdigest()
    )
    for images in (astronaut[:, :, :256, :256], astronaut[:, :, 100:164, 200:300].repeat(2, 1, 1, 1)):
        difference = (backend(images) - network(images)).abs()
        largest, mean = TOLERANCES[name, precision]
        assert difference.max() <= largest and difference.mean() <= mean
        assert precision == "fp32" or difference.max() > 0


def test_torch_at_fp32_stays_exact_when_images_grow(generator, astronaut):
    """Sums over 262,144 pixels that are taken naively, as torch does on channels_last, are off by 1e-3."""
    network, _ = load_generator(generator)
    difference = open_backend(generator, "torch", "fp32")(astronaut) - network.double()(astronaut.double())
    assert difference.abs().max() < 1e-5


@pytest.mark.parametrize("name", ["torch", "onnx", "openvino"])
def test_an_image_does_not_depend_on_its_batch(generator, astronaut, name):
    needs(name)
    images = torch.cat([astronaut[:, :, :64, :64], astronaut[:, :, 200:264, 200:264]])
    backend = open_backend(generator, name)
    assert torch.equal(backend(images), torch.cat([backend(images[:1]), backend(images[1:])]))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("shape", [(1, 4, 300, 200), (3, 4, 9, 7)])
def test_fast_instance_norm_is_its_formula(affine, dtype, tolerance, shape):
    plain = nn.InstanceNorm2d(4, affine=affine)
    if affine:
        nn.init.normal_(plain.weight)
        nn.init.normal_(plain.bias)
    network = for_cpu(nn.Sequential(plain), dtype)
    assert type(network[0]) is FastInstanceNorm
    x = (torch.randn(shape) + torch.tensor([0.0, 2, -1, 0.5]).view(1, 4, 1, 1)).to(dtype)
    found = network(x.contiguous(memory_format=torch.channels_last)).double()
    x = x.double()
    mean = x.mean((2, 3), keepdim=True)
    truth = (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    if affine:
        weight, bias = (value.detach().double().view(1, 4, 1, 1) for value in (plain.weight, plain.bias))
        truth = truth * weight + bias
    assert (found - truth).abs().max() <= tolerance * max(1, float(truth.abs().max()))


def test_the_network_that_is_given_stays_as_it_is(generator, astronaut):
    network, config = load_generator(generator)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    TorchBackend(network, config, "cpu", "bf16")(astronaut[:, :, :32, :32])
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert any(type(module) is nn.InstanceNorm2d for module in network.modules())


def test_onnxruntime_needs_no_torch_network(generator, astronaut, monkeypatch, here):
    needs("onnx")
    path = cached_onnx(generator)
    truth = load_generator(generator)[0](astronaut[:, :, :64, :64])

    def forbidden(*_):
        raise AssertionError("a torch module was called")

    monkeypatch.setattr(nn.Module, "__call__", forbidden)
    pixels = ((astronaut[0, :, :64, :64].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    Image.fromarray(pixels).save("photograph.png")
    with pytest.raises(SystemExit) as ended:
        main(["translate", str(path), "photograph.png", "out", "--backend", "onnx"])
    assert ended.value.code == 0
    written = np.asarray(Image.open("out/photograph.png"), np.float32)
    assert np.abs(written - (truth[0].permute(1, 2, 0).numpy() + 1) * 127.5).max() <= 0.51


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_tiles_are_torchs_where_another_backend_computes(generator, astronaut, monkeypatch, tmp_path, name):
    """What memory cannot hold at once is cut, and the manifest says by whom; an .onnx file has no tiles."""
    needs(name)
    pixels = ((astronaut[0].permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()
    for side in (40, 200):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(pixels[:side, :side]).save(tmp_path / "in" / f"{side}.png")
    Image.fromarray(pixels[:200, :200]).save(tmp_path / "in" / "slide.tif")
    monkeypatch.setattr(strategy, "SMALL_PIXELS", 100 * 100)
    monkeypatch.setattr(strategy, "memory_bytes", lambda device: 4 << 20)  # too little at bf16, too
    monkeypatch.setattr(pipeline, "SLIDE_PIXELS", 199 * 199)
    translator = Translator.from_pretrained(generator, backend=name, precision="auto")
    cut = []
    bands = translator.tiler.bands
    monkeypatch.setattr(
        translator.tiler, "bands", lambda source: (cut.append(source.height), bands(source))[1]
    )
    assert [result.error for result in translator.folder(tmp_path / "in", tmp_path / "out")] == [None] * 3
    assert cut == [200, 200]
    whole = Translator.from_pretrained(generator, "cpu", precision="fp32", tiling=Tiling("off"))(
        pixels[:200, :200]
    )
    for file in ("200.png", "slide.tif"):
        made = read_image(tmp_path / "out" / file).pixels
        assert np.abs(made.astype(int) - whole).mean() < 3  # dense: near the whole image's
    (settings,) = {
        json.dumps(json.loads(line)["settings"])
        for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    }
    assert json.loads(settings)["backend"] == name
    assert json.loads(settings)["tiling"] == "auto, tile auto, tiles in torch"

    from_file = Translator.from_pretrained(cached_onnx(generator), backend=name)
    results = list(from_file.folder(tmp_path / "in", tmp_path / "from file"))
    errors = {result.source.name: result.error for result in results if result.error}
    assert sorted(errors) == ["200.png", "slide.tif"]
    assert "200.png: may take more memory than there is" in errors["200.png"]
    assert "give the generator's folder in its place" in errors["200.png"]
    with pytest.raises(BadInput, match="an image of 200 x 200 pixels may take more memory"):
        from_file(pixels[:200, :200])
    untiled = Translator.from_pretrained(cached_onnx(generator), backend=name, tiling=Tiling("off"))
    assert untiled(pixels[:200, :200]).shape == (200, 200, 3)


def test_signals_are_survived_after_openvino(generator, cache):
    """OpenVINO 2026 leaves a thread that compiled without the stack that its signal handlers run on."""
    needs("openvino")
    script = (
        "import gc, os, signal, sys; from pathlib import Path; import torch\n"
        "from cyclegan.translation.backends import OpenVinoBackend\n"
        "signal.signal(signal.SIGUSR1, lambda *_: print('handled', flush=True))\n"
        "backend = OpenVinoBackend(Path(sys.argv[1]))\n"
        "backend(torch.zeros(1, 3, 32, 32))\n"
        "import threading\n"
        "def drop():\n    global backend\n    del backend\n    gc.collect()\n"
        "thread = threading.Thread(target=drop); thread.start(); thread.join()\n"
        "os.kill(os.getpid(), signal.SIGUSR1)\n"
    )
    words = [sys.executable, "-c", script, str(cached_onnx(generator))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_a_folder_is_exported_once_and_again_when_it_changes(generator, cache, tmp_path):
    needs("onnx")
    first = cached_onnx(generator)
    written = first.stat().st_mtime_ns
    assert cached_onnx(generator) == first and first.stat().st_mtime_ns == written
    assert cache in first.parents
    network, config = load_generator(generator)
    nn.init.ones_(next(network.parameters()).requires_grad_(False))
    save_generator(tmp_path / "changed", network.state_dict(), config)
    changed = cached_onnx(tmp_path / "changed")
    assert changed != first and changed.is_file()


FAST, SLOW = True, False
EVERYTHING = ("onnx", "onnxscript", "onnxruntime", "openvino")


@pytest.mark.parametrize(
    ("generator", "precision", "pictures", "cpu", "installed", "expected"),
    [
        ("G_AB", "auto", 200, FAST, EVERYTHING, "openvino"),
        ("G_AB", "auto", None, FAST, EVERYTHING, "openvino"),
        ("G_AB", "auto", 3, FAST, EVERYTHING, "torch"),
        ("G_AB", "fp32", 200, FAST, EVERYTHING, "torch"),
        ("G_AB", "auto", 200, SLOW, EVERYTHING, "torch"),
        ("G_AB", "auto", 200, FAST, ("onnxruntime", "onnx"), "torch"),
        ("g.onnx", "auto", 1, SLOW, EVERYTHING, "openvino"),
        ("g.onnx", "auto", 1, FAST, ("onnxruntime",), "onnx"),
    ],
)
def test_auto_picks_what_is_fast_here(
    generator, precision, pictures, cpu, installed, expected, tmp_path, monkeypatch
):
    monkeypatch.setattr(backends, "cpu_is_faster_in_bf16", lambda: cpu)
    monkeypatch.setattr(backends, "inference_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(backends, "_installed", lambda *names: set(names) <= set(installed))
    assert pick_backend(tmp_path / generator, precision, pictures) == expected


def test_auto_stays_with_torch_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(backends, "cpu_is_faster_in_bf16", lambda: True)
    monkeypatch.setattr(backends, "inference_device", lambda: torch.device("cuda"))
    assert pick_backend(tmp_path / "G_AB") == "torch"


@pytest.mark.parametrize(
    ("flags", "seconds", "expected"),
    [
        ({"amx_bf16", "avx512_bf16"}, {}, True),
        ({"avx512_bf16"}, {torch.bfloat16: 1.0, torch.float32: 2.0}, True),
        ({"avx512_bf16"}, {torch.bfloat16: 1.0, torch.float32: 1.0}, False),
        ({"avx2"}, {}, False),
    ],
)
def test_bf16_is_for_cpus_that_are_faster_in_it(flags, seconds, expected, monkeypatch):
    monkeypatch.setattr(deployed, "_cpu_flags", lambda path: flags)
    monkeypatch.setattr(deployed, "_convolution_seconds", seconds.__getitem__)
    assert deployed.cpu_is_faster_in_bf16.__wrapped__() is expected


def test_openvino_reports_to_nobody():
    needs("openvino")
    script = "import sys; from cyclegan.translation.backends import _openvino; _openvino().Core(); print('openvino_telemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


MISTAKES = {
    "G nowhere.onnx": ("nowhere.onnx", "onnx", {}, "nowhere.onnx: no such file"),
    "not ONNX": ("text.onnx", "onnx", {}, "text.onnx: is not an ONNX file that can be run"),
    "not ONNX either": ("text.onnx", "openvino", {}, "text.onnx: is not an ONNX file that can be run"),
    "torch on ONNX": ("text.onnx", "torch", {}, "torch takes a generator's folder"),
    "another precision": ("G", "onnx", {"precision": "bf16"}, "onnxruntime computes as the file was exported, here at fp32"),
    "a GPU": ("G", "openvino", {"device": "cuda"}, "--backend openvino: computes on the CPU, not on cuda"),
    "no generator": ("empty", "onnx", {}, "empty: has no config.json"),
}  # fmt: skip


@pytest.mark.parametrize("what", MISTAKES)
def test_mistakes_get_one_line(generator, tmp_path, what):
    path, backend, options, message = MISTAKES[what]
    needs(backend)
    (tmp_path / "text.onnx").write_text("hello")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput) as caught:
        open_backend(generator if path == "G" else tmp_path / path, backend, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_onnx_file_of_somebody_else(tmp_path):
    needs("openvino")
    import onnx

    value = [onnx.helper.make_tensor_value_info(name, 1, ["n"]) for name in "xy"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", value[:1], value[1:])
    onnx.save(
        onnx.helper.make_model(graph, ir_version=10, opset_imports=[onnx.helper.make_opsetid("", 20)]),
        tmp_path / "g.onnx",
    )
    for name in ("onnx", "openvino"):
        with pytest.raises(
            BadInput, match="does not say what images it takes; write it with 'cyclegan export'"
        ):
            open_backend(tmp_path / "g.onnx", name)


@pytest.mark.parametrize(
    ("name", "package", "extra"), [("onnx", "onnxruntime", "export"), ("openvino", "openvino", "openvino")]
)
def test_a_missing_package_is_named_with_the_remedy(generator, monkeypatch, name, package, extra):
    needs(name)
    cached_onnx(generator)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(BadInput, match=rf"needs {package}: pip install 'cyclegan\[{extra}\]'"):
        Translator.from_pretrained(generator, backend=name)
