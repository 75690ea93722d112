"""Networks against published numbers and plain arithmetic."""

import pytest
import torch

from cyclegan.errors import BadInput
from cyclegan.networks import build
from cyclegan.networks.inference import translate
from cyclegan.networks.layers import ReflectionPad, initialize


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("blocks", "published"), [(9, 11_378_179), (6, 7_837_699)])
def test_resnet_parameter_counts(blocks, published):
    assert count(build("generator", "resnet", {"blocks": blocks})) == published


def test_patchgan_parameter_count():
    assert count(build("discriminator", "patchgan", {})) == 2_764_737


def test_published_networks_are_the_defaults():
    assert count(build("generator", "resnet", {})) == 11_378_179


@pytest.mark.parametrize(("layers", "published"), [(1, 16), (2, 34), (3, 70), (4, 142)])
def test_patchgan_receptive_field(layers, published):
    """The pixels that one score's gradient reaches, measured, not computed from the layers."""
    network = initialize(build("discriminator", "patchgan", {"layers": layers, "filters": 2, "norm": "none"}))
    image = torch.randn(1, 3, 320, 320, requires_grad=True)
    scores = network(image)
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    touched = image.grad[0].abs().sum(0) > 0
    assert int(touched.any(0).sum()) == published
    assert int(touched.any(1).sum()) == published


@pytest.mark.parametrize("upsample", ["transpose", "resize"])
@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_generator_keeps_shape_and_range_and_trains_every_parameter(upsample, norm, channels):
    arguments = {"filters": 4, "blocks": 2, "upsample": upsample, "norm": norm, "channels": channels}
    network = initialize(build("generator", "resnet", arguments))
    images = torch.randn(2, channels, 32, 48)
    output = network(images)
    assert output.shape == images.shape
    assert output.abs().max() <= 1
    # A plain sum would be blind to biases before normalization; so would its gradient.
    (output * torch.randn_like(output)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    assert all(p.grad.abs().sum() > 0 for n, p in network.named_parameters() if n.endswith("weight"))


def test_resize_upsampling_treats_all_pixels_alike():
    """A flat input gives, far from the borders, a flat output: no pixel sees more inputs than its neighbour."""
    torch.manual_seed(0)
    flat = torch.full((1, 3, 128, 128), 0.3)
    spread = {}
    for upsample in ("resize", "transpose"):
        arguments = {"filters": 8, "blocks": 1, "upsample": upsample, "norm": "none"}
        network = initialize(build("generator", "resnet", arguments), std=0.1)
        spread[upsample] = float(network(flat).detach()[0, :, 48:80, 48:80].std(dim=(1, 2)).max())
    assert spread["resize"] < 1e-6 < spread["transpose"]


def test_first_weights_are_the_papers():
    network = initialize(build("generator", "resnet", {}))
    weights = torch.cat([p.detach().flatten() for n, p in network.named_parameters() if n.endswith("weight")])
    assert abs(float(weights.std()) - 0.02) < 2e-4
    assert abs(float(weights.mean())) < 1e-4
    assert all(p.abs().sum() == 0 for n, p in network.named_parameters() if n.endswith("bias"))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 20), (17, 30), (31, 64)])
def test_any_size_goes_through(height, width):
    network = build("generator", "resnet", {"filters": 4, "blocks": 1}).eval()
    assert translate(network, torch.randn(1, 3, height, width), 4).shape == (1, 3, height, width)


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "message"),
    [
        ("generator", "resnett", {}, "generator.name: there is no 'resnett'; did you mean 'resnet'?"),
        ("generator", "resnet", {"block": 3}, "generator.block: the generator 'resnet' has no such setting"),
        (
            "generator",
            "resnet",
            {"layers": 3},
            "generator.layers: the generator 'resnet' has no such setting",
        ),
        ("generator", "resnet", {"blocks": "six"}, "generator.blocks: Input should be a valid integer"),
        ("discriminator", "patchgan", {"norm": "layer"}, "discriminator.norm: Input should be 'instance'"),
    ],
)
def test_what_cannot_be_built_is_named(kind, name, arguments, message):
    with pytest.raises(BadInput) as caught:
        build(kind, name, arguments)
    assert message in str(caught.value)


@pytest.mark.parametrize(("size", "width"), [((5, 7), 1), ((8, 6), 3), ((4, 4), 3)])
def test_reflection_padding_and_its_gradient(size, width):
    """Against PyTorch's own layer, and by finite differences."""
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_(True)
    ours, theirs = ReflectionPad(width)(x), torch.nn.ReflectionPad2d(width)(y)
    assert torch.equal(ours, theirs)
    weights = torch.randn_like(ours)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    assert torch.autograd.gradcheck(ReflectionPad(width), x)


def test_padding_keeps_the_precision_under_autocast():
    with torch.autocast("cpu", torch.bfloat16):
        for grad in (True, False):
            x = torch.randn(1, 1, 4, 4, dtype=torch.bfloat16, requires_grad=grad)
            assert ReflectionPad(1)(x).dtype == torch.bfloat16


def test_a_residual_generator_begins_near_the_identity():
    images = torch.rand(1, 3, 32, 32) * 2 - 1
    distance = {}
    for residual in (True, False):
        network = initialize(build("generator", "resnet", {"filters": 16, "residual": residual}))
        distance[residual] = float((network(images) - images).detach().abs().mean())
    assert distance[True] < 0.3 < distance[False]
    far = build("generator", "resnet", {"filters": 4, "blocks": 0, "residual": True})
    torch.nn.init.constant_(far.layers[-1].bias, 9.0)
    assert float(far(images).detach().min()) == 1.0
