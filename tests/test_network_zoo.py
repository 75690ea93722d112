"""Every registered generator: saved, loaded, exported, translating; gradients; tiles."""

import functools

import numpy as np
import pytest
import torch
from generators import generator_config

from cyclegan import Translator
from cyclegan.artifacts import NetworkConfig, load_generator, network_arguments, save_generator
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.networks import DISCRIMINATORS, GENERATORS, build, fitted
from cyclegan.networks.attention import SelfAttention
from cyclegan.networks.inference import translate
from cyclegan.networks.layers import initialize
from cyclegan.training.networks import build_networks
from cyclegan.translation.options import Tiling

SMALL = {"filters": 4, "features": 16, "heads": 2, "blocks": 1}
ZOO = {
    "resnet": ("resnet", {"filters": 4, "blocks": 1}),
    "resnet, attention": ("resnet", {"filters": 4, "blocks": 1, "attention": 4}),
    "unet": ("unet", {"filters": 4, "depth": 5}),
    "unet, attention": ("unet", {"filters": 4, "depth": 5, "attention": 8}),
    "vit_unet": ("vit_unet", {**SMALL, "depth": 3}),
    "vit_unet, attention": ("vit_unet", {**SMALL, "depth": 2, "attention": 2}),
    "modnet": ("modnet", {**SMALL, "depth": 3}),
    "modnet, reference": ("modnet", {**SMALL, "depth": 3, "style": "reference"}),
    "modnet, attention": ("modnet", {**SMALL, "depth": 2, "attention": 1}),
    "modnet, residual": ("modnet", {**SMALL, "depth": 2, "residual": True}),
}
CONVOLUTIONS = (torch.nn.Conv2d, torch.nn.ConvTranspose2d)
JUDGES = {
    "patchgan": ("patchgan", {"filters": 4, "layers": 2}),
    "patchgan, attention": ("patchgan", {"filters": 4, "layers": 2, "attention": 4, "spectral_norm": True}),
    "pixel": ("pixel", {"filters": 4, "attention": 1}),
    "multiscale": ("multiscale", {"filters": 4, "layers": 2, "scales": 2, "spectral_norm": True}),
    "multiscale, attention": ("multiscale", {"filters": 4, "layers": 2, "scales": 2, "attention": 4}),
    "batch_statistics": ("batch_statistics", {"filters": 4, "layers": 2, "spectral_norm": True}),
    "batch_statistics, attention": ("batch_statistics", {"filters": 4, "layers": 2, "attention": 2}),
    "projected": ("projected", {"filters": 4, "scales": 3}),
    "projected, detail": ("projected", {"filters": 4, "scales": 2, "detail": 2.0}),
    "projected, attention": ("projected", {"filters": 8, "scales": 2, "attention": 4}),
}


def awake(network):
    """With the gates open that begin at 0, so that nothing behind them is invisible."""
    for name, parameter in network.named_parameters():
        if name.rsplit(".", 1)[-1] in ("gate", "gamma"):
            torch.nn.init.constant_(parameter, 0.7)
    return network


def test_the_tests_know_every_network():
    assert {name for name, _ in ZOO.values()} == set(GENERATORS)
    assert {name for name, _ in JUDGES.values()} == set(DISCRIMINATORS)


@pytest.mark.parametrize("kind", ["resnet", "unet", "vit_unet", "modnet"])
def test_a_residual_generator_adds_to_the_image_or_to_its_colours(kind):
    name, arguments = ZOO[kind]
    images = torch.rand(2, 3, 64, 32) * 2 - 1
    patches = images.unflatten(3, (8, 4)).unflatten(2, (16, 4)).mean(dim=(3, 5))
    colours = torch.nn.functional.interpolate(patches, scale_factor=4, mode="bilinear")
    for residual, expected in ((True, images), ("coarse", colours)):
        network = initialize(build("generator", name, {**arguments, "residual": residual}))
        last = [layer for layer in network.modules() if isinstance(layer, CONVOLUTIONS)][-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.constant_(last.bias, 0.25)
        with torch.no_grad():
            torch.testing.assert_close(network.train()(images), (expected + 0.25).clamp(-1, 1))


def test_signals_do_not_vanish_where_no_norm_brings_them_back():
    """A network as deep as the paper's, as it begins, over the maps that it keeps and the one that it ends with."""
    network = initialize(build("generator", "modnet", {**SMALL, "depth": 4, "blocks": 4}))
    with torch.no_grad():
        widths = [float(found.std()) for found in network.encode(torch.randn(4, 3, 64, 64))]
    assert all(0.2 < width < 5 for width in widths)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("zoo")

    @functools.cache
    def make(kind, channels):
        name, arguments = ZOO[kind]
        network = awake(initialize(build("generator", name, {**arguments, "channels": channels}), std=0.2))
        config = generator_config(
            network=NetworkConfig(
                name=name, arguments=network_arguments(network, {**arguments, "channels": channels})
            ),
            channels=channels,
            multiple_of=network.multiple_of,
        )
        path = folder / f"{kind} {channels}".replace(", ", "-").replace(" ", "-")
        save_generator(path, network.state_dict(), config)
        return path, network.eval()

    return make


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ZOO)
def test_it_is_saved_loaded_and_translates_at_two_sizes(saved, kind, channels):
    path, network = saved(kind, channels)
    loaded, _ = load_generator(path)
    images = torch.rand(2, channels, 32, 64) * 2 - 1
    with torch.no_grad():
        expected = network(images)
        assert torch.equal(loaded(images), expected)
    assert expected.shape == images.shape and expected.abs().max() <= 1
    assert expected.std() > 1e-3
    translator = Translator.from_pretrained(path, "cpu", precision="fp32")
    torch.testing.assert_close(translator(images), expected, atol=1e-5, rtol=0)
    for height, width in ((32, 32), (37, 50)):
        picture = np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)
        made = translator(picture)
        assert made.shape == picture.shape and made.dtype == np.uint8
        assert not np.array_equal(made, picture)


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        ("resnet, attention", 1),
        ("unet", 1),
        ("unet", 3),
        ("vit_unet", 1),
        ("modnet", 1),
        ("modnet", 3),
        pytest.param("modnet, reference", 1, marks=pytest.mark.slow),
        pytest.param("unet, attention", 3, marks=pytest.mark.slow),
        pytest.param("vit_unet, attention", 3, marks=pytest.mark.slow),
        pytest.param("modnet, attention", 3, marks=pytest.mark.slow),
        pytest.param("modnet, residual", 3, marks=pytest.mark.slow),
    ],
)
def test_it_is_exported_to_onnx(saved, kind, channels, tmp_path):
    """``export_generator`` compares the file with torch at several sizes before it is there."""
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    from cyclegan.artifacts.export import export_generator

    path, network = saved(kind, channels)
    done = export_generator(path, tmp_path / "generator.onnx")
    assert done.largest < 1e-4 and len({shape[2:] for shape in done.shapes}) >= 2
    images = torch.rand(1, channels, 32, 96) * 2 - 1
    exported = Translator.from_pretrained(done.path, "cpu", backend="onnx")
    with torch.no_grad():
        torch.testing.assert_close(exported(images), network(images), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("kind", "channels"), [("vit_unet", 3), ("modnet", 1), ("modnet, reference", 3)])
def test_a_transformer_is_exported_by_torch_where_its_map_could_be_one_pixel(kind, channels, tmp_path):
    """At the depth that is the default, where 16 pixels, as small as others are checked, are one token."""
    from cyclegan.artifacts.export import export_generator

    name, arguments = ZOO[kind]
    arguments = {**arguments, "depth": 4, "channels": channels}
    network = awake(initialize(build("generator", name, arguments), std=0.2))
    listed = NetworkConfig(name=name, arguments=network_arguments(network, arguments))
    config = generator_config(network=listed, channels=channels, multiple_of=network.multiple_of)
    save_generator(tmp_path / "generator", network.state_dict(), config)
    done = export_generator(tmp_path / "generator", tmp_path / "generator.pt2")
    assert done.largest < 1e-4 and {shape[2:] for shape in done.shapes} == {(32, 32), (32, 48)}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("kind", ["resnet, attention", "unet, attention", "vit_unet", "modnet, attention"])
def test_attention_is_exported_by_torch(saved, kind, precision, tmp_path):
    """The comparison takes batches of one and of three; one may not become a case of its own."""
    from cyclegan.artifacts.export import export_generator

    done = export_generator(saved(kind, 3)[0], tmp_path / "generator.pt2", precision)
    assert done.largest < (1e-4 if precision == "fp32" else 0.1) and {shape[0] for shape in done.shapes} == {
        1,
        3,
    }


def untouched(network, *images):
    """Parameters that a loss on the output does not change, but for rounding of doubles."""
    network = network.double()
    for fixed in getattr(network, "fixed", ()):
        fixed.double()
    output = network(*(image.double() for image in images))
    parts = output if isinstance(output, tuple) else (output,)
    torch.stack([(part * torch.randn_like(part)).sum() for part in parts]).sum().backward()
    return {name for name, p in network.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-10}


def softmaxed_away(network):
    """Softmax does not see what is added to all logits of a query."""
    layers = network.named_modules()
    return {f"{name}.f.bias" for name, layer in layers if isinstance(layer, SelfAttention)}


def normed_away(network, *images):
    """Biases of the convolutions whose maps an instance norm gets, which takes the mean of a channel away."""
    made, found = {}, set()

    def keep(name):
        return lambda layer, inputs, output: made.update({name: output})

    def compare(layer, inputs):
        for name, maps in made.items():
            # On the way up other maps come after them.
            if torch.equal(inputs[0][:, : maps.shape[1]], maps):
                found.add(f"{name}.bias")

    hooks = []
    for name, layer in network.named_modules():
        if isinstance(layer, CONVOLUTIONS):
            hooks.append(layer.register_forward_hook(keep(name)))
        elif isinstance(layer, torch.nn.InstanceNorm2d):
            hooks.append(layer.register_forward_pre_hook(compare))
    with torch.no_grad():
        network(*images)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("kind", ZOO)
def test_gradients_reach_every_parameter(kind):
    name, arguments = ZOO[kind]
    network = awake(initialize(build("generator", name, arguments), std=0.2))
    images = [torch.randn(2, 3, 32, 32) for _ in range(1 + ("reference" in kind))]
    away = normed_away(network, *images)
    assert bool(away) == any(isinstance(layer, torch.nn.InstanceNorm2d) for layer in network.modules())
    assert untouched(network, *images) == away | softmaxed_away(network)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", JUDGES)
def test_gradients_reach_every_parameter_of_a_discriminator(kind, channels):
    name, arguments = JUDGES[kind]
    if name != "projected":  # which has none
        arguments = {"norm": "none", **arguments}
    network = awake(initialize(build("discriminator", name, {"channels": channels, **arguments}), std=0.2))
    assert untouched(network, torch.randn(2, channels, 32, 48)) == softmaxed_away(network)


@pytest.mark.parametrize("kind", [kind for kind in ZOO if kind not in ("resnet", "unet")])
@pytest.mark.parametrize("tiling", [Tiling(32), Tiling(method="dense"), Tiling(method="exact")])
def test_tiles_are_refused_where_attention_sees_all(saved, kind, tiling):
    path, _ = saved(kind, 3)
    with pytest.raises(BadInput, match="attends to the whole image at once.*--size.*--tiling naive"):
        Translator.from_pretrained(path, "cpu", precision="fp32", tiling=tiling)
    whole = Translator.from_pretrained(path, "cpu", precision="fp32")
    assert not whole.goes_in_tiles(1500, 1500)
    with pytest.raises(BadInput, match="1000000x1000000 pixels are more than memory holds"):
        whole.goes_in_tiles(10**6, 10**6)
    naive = Translator.from_pretrained(path, "cpu", precision="fp32", tiling=Tiling(32, method="naive"))
    assert naive(np.zeros((64, 40, 3), np.uint8)).shape == (64, 40, 3)


@pytest.mark.parametrize("name", ["modnet", "vit_unet"])
def test_a_coarse_ending_takes_pictures_of_any_size(name):
    """Its colours are averaged over 4x4 pixels, also where the network halves once."""
    arguments = {"filters": 4, "features": 16, "heads": 2, "blocks": 1, "depth": 1, "residual": "coarse"}
    network = build("generator", name, arguments).eval()
    assert translate(network, torch.rand(1, 3, 70, 33), network.multiple_of).shape == (1, 3, 70, 33)


def test_what_a_size_has_no_map_for_is_said_in_pixels():
    for changes, message in (
        (
            {"generator": {"attention": 8}},
            "generator.attention: at size 64 .*no feature map of 8 .*64, 32, 16",
        ),
        ({"discriminator": {"attention": 64}}, "discriminator.attention: .*'patchgan' .*has: 32, 16, 8"),
        (
            {"size": 96, "generator": {"name": "unet", "dropout": True}},
            "generator.dropout: 'unet' .*multiple of 64",
        ),
    ):
        with pytest.raises(BadInput, match=message):
            build_networks(TrainSettings(**{"size": 64, **changes}))
    build_networks(TrainSettings(size=64, generator={"name": "unet", "filters": 2, "dropout": True}))


def test_a_size_decides_what_a_recipe_leaves_open():
    assert fitted("generator", "unet", {}, 256) == {"depth": 8}
    assert fitted("generator", "unet", {}, 128) == {"depth": 7}
    assert fitted("generator", "unet", {}, 96) == {"depth": 5}
    assert fitted("generator", "unet", {"depth": 6}, 256) == {"depth": 6}
    assert fitted("generator", "resnet", {"attention": 64}, 256) == {"attention": 4}
    assert fitted("discriminator", "patchgan", {"attention": 32}, 256) == {"attention": 8}
    with pytest.raises(BadInput, match="generator.attention: at size 256 no feature map has 60 pixels"):
        fitted("generator", "resnet", {"attention": 60}, 256)
    with pytest.raises(BadInput, match=r"no feature map of 1/8 .*it has: all, 1/2, 1/4"):
        build("generator", "resnet", {"attention": 8})
    with pytest.raises(BadInput, match="generator.heads: 3 heads do not divide 16 features"):
        build("generator", "modnet", {**SMALL, "heads": 3})
    with pytest.raises(BadInput, match="generator.depth: Input should be greater than or equal to 5, not 4"):
        build("generator", "unet", {"depth": 4})
