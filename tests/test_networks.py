"""Networks against published numbers and plain arithmetic."""

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.errors import BadInput
from cyclegan.networks import build
from cyclegan.networks.inference import pad, translate
from cyclegan.networks.layers import Dropout, ReflectionPad, blur_downsample, blur_upsample, clamp, initialize


def count(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("blocks", "published"), [(9, 11_378_179), (6, 7_837_699)])
def test_resnet_parameter_counts(blocks, published):
    assert count(build("generator", "resnet", {"blocks": blocks})) == published


@pytest.mark.parametrize(("depth", "published"), [(8, 54.414), (7, 41.829)])
def test_unet_parameter_counts(depth, published):
    """In millions, as pix2pix' code prints them."""
    network = build("generator", "unet", {"depth": depth, "norm": "batch"})
    assert round(count(network) / 1e6, 3) == published


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


NORMS = ["instance", "instance_affine", "batch", "none"]
UPSAMPLES = ["transpose", "resize", "resize_zero", "bilinear", "bilinear_zero", "blur"]


@pytest.mark.parametrize("upsample", UPSAMPLES)
@pytest.mark.parametrize("norm", NORMS)
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


@pytest.mark.parametrize("padding", ["reflect", "replicate", "zero"])
@pytest.mark.parametrize("dropout", [False, True])
def test_other_blocks_keep_shape_and_train(padding, dropout):
    arguments = {"filters": 4, "blocks": 2, "padding": padding, "dropout": dropout, "downsample": "blur"}
    network = initialize(build("generator", "resnet", arguments))
    output = network(torch.randn(2, 3, 32, 48))
    assert output.shape == (2, 3, 32, 48)
    (output * torch.randn_like(output)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in network.named_parameters() if n.endswith("weight"))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_unet_keeps_shape_and_range_and_trains_every_parameter(norm, channels):
    arguments = {"filters": 4, "depth": 6, "norm": norm, "channels": channels, "dropout": True}
    network = initialize(build("generator", "unet", arguments), std=0.2)
    assert sum(isinstance(module, Dropout) for module in network.modules()) == 1  # pix2pix: depth - 5
    images = torch.randn(2, channels, 64, 128)
    output = network(images)
    assert output.shape == images.shape
    assert output.abs().max() <= 1
    (output * torch.randn_like(output)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in network.named_parameters() if n.endswith("weight"))


def test_a_unet_sees_all_of_its_image():
    """A picture of 2 ** depth pixels is one in the middle, which every pixel of the output depends on."""
    network = initialize(build("generator", "unet", {"filters": 4, "depth": 5, "norm": "none"}), std=0.2)
    image = torch.randn(1, 3, 32, 32, requires_grad=True)
    network(image)[0, 0, 16, 16].backward()
    assert (image.grad[0].abs().sum(0) > 0).all()


def test_blurs_are_neither_trained_nor_drawn_nor_saved():
    network = build("generator", "resnet", {"downsample": "blur", "upsample": "blur"})
    blurs = [m for m in network.modules() if getattr(m, "groups", 1) > 1]
    before = [blur.weight.clone() for blur in blurs]
    initialize(network)
    assert len(blurs) == 4
    assert all(torch.equal(blur.weight, weight) for blur, weight in zip(blurs, before, strict=True))
    assert count(network) == 11_378_179 == sum(t.numel() for t in network.state_dict().values())


def test_dropout_drops_half_alike_for_a_batch_and_only_while_training():
    images = torch.ones(3, 8, 32, 32)
    dropped = Dropout()(images)
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert abs(float(dropped.mean()) - 1) < 0.1
    assert torch.equal(dropped[0], dropped[2])
    assert torch.equal(Dropout().eval()(images), images)


def test_blurs_keep_what_is_flat_and_remove_what_alternates():
    """By what they are for: constants pass, the highest frequency does not fold into a lower one."""
    flat = torch.full((1, 2, 8, 8), 0.7)
    stripes = torch.tensor([1.0, -1.0]).repeat(4).expand(1, 2, 8, 8).contiguous()
    torch.testing.assert_close(blur_downsample(2)(flat), flat[..., :4, :4])
    torch.testing.assert_close(blur_downsample(2)(stripes)[..., 1:-1], torch.zeros(1, 2, 4, 2))
    enlarge = torch.nn.Sequential(torch.nn.ReplicationPad2d(1), blur_upsample(2))
    torch.testing.assert_close(enlarge(flat), torch.full((1, 2, 16, 16), 0.7))
    ramp = torch.arange(8.0).expand(1, 2, 8, 8)
    expected = (torch.arange(16.0) - 0.5) / 2  # half-pixel centres, as any resize of a ramp
    torch.testing.assert_close(enlarge(ramp)[0, 0, 5, 2:-2], expected[2:-2])


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
    for name, arguments in {"resnet": {"blocks": 1, "downsample": "blur"}, "unet": {"depth": 6}}.items():
        network = build("generator", name, {"filters": 4, **arguments}).eval()
        images = torch.randn(1, 3, height, width)
        assert translate(network, images, network.multiple_of).shape == images.shape


def test_padding_reaches_the_next_multiple_and_no_further():
    """A U-Net of 256 px would else see mostly mirrors."""
    assert pad(torch.zeros(1, 3, 200, 300), 256).shape == (1, 3, 256, 512)
    assert pad(torch.zeros(1, 3, 256, 256), 256).shape == (1, 3, 256, 256)
    assert pad(torch.zeros(1, 3, 5, 18), 4).shape == (1, 3, 16, 20)


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


def test_a_coarse_residual_generator_begins_with_the_colours_alone():
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    network = build("generator", "resnet", {"filters": 4, "blocks": 1, "residual": "coarse"})
    torch.nn.init.zeros_(network.layers[-1].weight)
    torch.nn.init.zeros_(network.layers[-1].bias)
    for made, image in zip(network(images).detach(), images, strict=True):
        means = Image.fromarray(((image.mean(dim=0) + 1) / 2).numpy()).reduce(4)
        expected = np.asarray(means.resize((32, 32), Image.Resampling.BILINEAR)) * 2 - 1
        np.testing.assert_allclose(made.mean(dim=0), expected, atol=1e-5)


def test_a_stain_past_the_range_can_be_learned_away():
    """torch's clamp gives it no gradient, and it would stay for ever."""
    x = torch.tensor([-3.0, -1.0, -0.5, 1.0, 2.0], requires_grad=True)
    assert clamp(x).tolist() == x.clamp(-1, 1).tolist() == clamp(x.detach()).tolist()
    for push in (1.0, -1.0):  # descending a positive gradient, values fall
        (gradient,) = torch.autograd.grad(push * clamp(x).sum(), x)
        falls = push > 0
        assert gradient.tolist() == [0 if falls else push] * 2 + [push] + [push if falls else 0] * 2
    inside = torch.rand(4, 4, dtype=torch.float64, requires_grad=True) * 1.9 - 0.95
    assert torch.autograd.gradcheck(clamp, inside)
    stain = torch.nn.Parameter(torch.tensor(-3.0))
    descent = torch.optim.SGD([stain], lr=0.5)
    for _ in range(20):
        descent.zero_grad()
        (clamp(stain) - 0.2).square().backward()
        descent.step()
    assert stain.item() == pytest.approx(0.2, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("patchgan", {"layers": 1}), ("patchgan", {"layers": 4}), ("multiscale", {"layers": 2, "scales": 3}),
        ("batch_statistics", {"layers": 3}), ("pixel", {}), ("projected", {"scales": 3, "layers": 4}),
        ("projected", {}),
    ],
)  # fmt: skip
def test_a_discriminator_knows_the_smallest_image(name, arguments):
    network = build("discriminator", name, {"filters": 4, **arguments})
    network(torch.zeros(1, 3, network.smallest, network.smallest))
    too_small = torch.zeros(1, 3, network.smallest - 1, network.smallest - 1)
    with pytest.raises((ValueError, RuntimeError)):
        network(too_small)


@pytest.mark.parametrize(("name", "arguments"), [("resnet", {"blocks": 1}), ("unet", {"depth": 6})])
def test_dropout_is_in_the_network_that_asks_for_it(name, arguments):
    images = torch.randn(1, 3, 64, 64)
    for dropout in (False, True):
        network = initialize(
            build("generator", name, {"filters": 4, **arguments, "dropout": dropout}), std=0.2
        )
        with torch.no_grad():
            one, other = network(images), network(images)
            assert torch.equal(one, other) != dropout
            network.eval()
            assert torch.equal(network(images), network(images))
