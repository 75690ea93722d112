"""Networks as they are trained on CPUs compute what the plain ones do; fp64 tells rounding from error."""

import copy

import pytest
import torch

from cyclegan.networks import build, trained
from cyclegan.networks.few_outputs import FewOutputsConv2d
from cyclegan.networks.layers import initialize
from cyclegan.networks.trained import EnlargingConv2d, InstanceNorm, InstanceNormByImage, for_training

CPU = torch.device("cpu")


def pair(kind, name, **arguments):
    """A plain network and the one that is trained, with the same weights, in fp64."""
    torch.manual_seed(0)
    plain = initialize(build(kind, name, arguments)).double()
    return plain, for_training(copy.deepcopy(plain), CPU)


def assert_same(plain, trained, shape=(2, 3, 32, 24)):
    x = (torch.rand(shape, dtype=torch.float64) * 2 - 1).requires_grad_()
    y = x.detach().clone().requires_grad_()
    ours, theirs = trained(y), plain(x)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-9)
    toward = torch.randn_like(theirs)
    theirs.backward(toward)
    ours.backward(toward)
    torch.testing.assert_close(y.grad, x.grad, atol=1e-12, rtol=1e-8)
    scale = max(float(p.grad.abs().max()) for p in plain.parameters())
    for (name, p), (key, q) in zip(plain.named_parameters(), trained.named_parameters(), strict=True):
        assert name == key
        torch.testing.assert_close(q.grad, p.grad, atol=1e-11 * scale, rtol=1e-7)
    assert list(plain.state_dict()) == list(trained.state_dict())
    for name, value in plain.state_dict().items():  # running statistics as well
        torch.testing.assert_close(trained.state_dict()[name], value)


def kinds(network, kind):
    return sum(type(module) is kind for module in network.modules())


@pytest.mark.parametrize("norm", ["instance", "instance_affine", "batch", "none"])
@pytest.mark.parametrize("upsample", ["transpose", "resize", "resize_zero", "bilinear", "blur"])
def test_generators_are_the_same_function(norm, upsample):
    plain, trained = pair("generator", "resnet", filters=4, blocks=1, norm=norm, upsample=upsample)
    assert_same(plain, trained)
    assert kinds(trained, EnlargingConv2d) == 2 * upsample.startswith("resize")
    assert kinds(trained, InstanceNorm) == 7 * norm.startswith("instance")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("patchgan", {"filters": 4, "layers": 2}),
        ("patchgan", {"filters": 4, "layers": 2, "norm": "none", "spectral_norm": True, "attention": 2}),
        ("multiscale", {"filters": 4, "layers": 1}),
    ],
)
def test_discriminators_are_the_same_function(name, arguments):
    plain, trained = pair("discriminator", name, **arguments)
    if name == "multiscale":
        plain, trained = plain.eval(), trained.eval()
        x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
        for one, other in zip(plain(x), trained(x), strict=True):
            torch.testing.assert_close(one, other)
    else:
        assert_same(plain, trained, (2, 3, 32, 32))


@pytest.mark.parametrize("name", ["unet", "vit_unet"])
def test_other_generators_are_the_same_function(name):
    sizes = {"unet": {"depth": 5}, "vit_unet": {"depth": 2, "blocks": 1, "features": 16, "heads": 2}}
    plain, trained = pair("generator", name, filters=4, **sizes[name])
    assert_same(plain, trained, (2, 3, 32, 32))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("channels", "kernel"), [(3, (7, 7)), (1, (3, 5))])
def test_a_layer_of_few_outputs_is_the_same_function(channels, kernel, bias):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(16, channels, kernel, bias=bias)).double()
    trained = for_training(copy.deepcopy(plain), CPU)
    assert kinds(trained, FewOutputsConv2d) == 1
    assert_same(plain, trained, (2, 16, 9, 12))
    x = torch.rand(1, 16, 7, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(trained, x) and torch.autograd.gradgradcheck(trained, x)


def test_a_layer_of_few_outputs_under_autocast_is_nearer_to_fp32_than_bf16_can_tell():
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Conv2d(64, 3, 7))
    trained = for_training(copy.deepcopy(plain), CPU)
    x = torch.randn(2, 64, 20, 20)
    ours, theirs, exact = (x.clone().requires_grad_() for _ in range(3))
    with torch.autocast("cpu", torch.bfloat16):
        made, plainly = trained(ours), plain(theirs)
    assert made.dtype == plainly.dtype == torch.bfloat16
    toward = torch.randn_like(made, dtype=torch.float32)
    for result in (made, plainly):
        result.backward(toward.to(result.dtype))
    grads = [layer[0].weight.grad.clone() for layer in (trained, plain)]
    plain.zero_grad()
    truth = plain(exact)
    truth.backward(toward)
    assert grads[0].dtype == torch.float32
    for found, usual, right in (
        (made, plainly, truth), (ours.grad, theirs.grad, exact.grad), (*grads, plain[0].weight.grad)
    ):  # fmt: skip
        assert (found - right).abs().mean() < 2 * (usual - right).abs().mean()


@pytest.mark.parametrize(
    "change", [{"stride": 2}, {"padding": 3}, {"groups": 2}, {"padding_mode": "circular"}, {"dilation": 2}]
)
@pytest.mark.parametrize(("inputs", "outputs"), [(16, 4), (4, 16)])
def test_another_layer_of_few_channels_is_left_alone(inputs, outputs, change):
    layer = torch.nn.Conv2d(inputs, outputs, 7, **change)
    assert kinds(for_training(torch.nn.Sequential(layer), CPU), torch.nn.Conv2d) == 1


def test_layers_of_many_outputs_or_of_one_pixel_are_left_alone():
    layers = [torch.nn.Conv2d(16, 16, 3), torch.nn.Conv2d(3, 16, 7), torch.nn.Conv2d(16, 3, 1)]
    assert kinds(for_training(torch.nn.Sequential(*layers), CPU), torch.nn.Conv2d) == 3


def last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


def test_the_memory_is_channels_last_where_that_is_faster(monkeypatch):
    def layout(norm, precision="bf16", device=CPU):
        plain = build("generator", "resnet", {"filters": 4, "blocks": 1, "norm": norm})
        return last(for_training(plain, device, precision).layers[1].weight)

    for has_bf16 in (True, False):
        monkeypatch.setattr(trained, "cpu_has_bf16", lambda has=has_bf16: has)
        assert layout("batch") and layout("none") and layout("instance") == has_bf16
        assert not layout("instance", "no") and not layout("instance", device=torch.device("cuda"))


@pytest.mark.parametrize("images", [1, 3])
@pytest.mark.parametrize("norm", ["instance", "instance_affine"])
@pytest.mark.parametrize("name", ["resnet", "patchgan"])
def test_at_bf16_it_is_the_same_function_and_no_map_changes_its_layout(name, norm, images, monkeypatch):
    monkeypatch.setattr(trained, "cpu_has_bf16", lambda: True)
    kind = "generator" if name == "resnet" else "discriminator"
    arguments = {"blocks": 1, "upsample": "resize"} if name == "resnet" else {"layers": 2}
    torch.manual_seed(0)
    plain = initialize(build(kind, name, {"filters": 16, "norm": norm, **arguments}))
    fast = for_training(copy.deepcopy(plain), CPU, "bf16")
    assert_same(plain.double(), copy.deepcopy(fast).double(), (images, 3, 32, 24))

    seen = []

    def look(module, inputs, output):
        seen.append(output.detach())
        output.register_hook(seen.append)

    layers = [layer for layer in fast.modules() if not list(layer.children())]
    for layer in layers:
        layer.register_forward_hook(look)
    with torch.autocast("cpu", torch.bfloat16):
        made = fast(torch.rand(images, 3, 32, 24, requires_grad=True))
    made.backward(torch.ones(made.shape, dtype=made.dtype))  # as from a loss beside plain images
    assert len(seen) == 2 * len(layers)
    # Images and scores, of few channels, come and go in either layout.
    assert all(last(map_) for map_ in seen if map_.shape[1] >= 16)


def test_where_bf16_is_emulated_a_map_of_the_other_layout_is_brought_back():
    """As a transformer's tokens come; else the layers behind it would go on in the layout that is slow there."""
    x = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    assert InstanceNorm(3)(x).is_contiguous()


@pytest.mark.parametrize("affine", [False, True])
def test_by_image_gradients_have_gradients_and_one_pixel_has_no_norm(affine):
    norm = InstanceNormByImage(3, affine=affine, dtype=torch.float64)
    x = torch.rand(2, 3, 2, 4, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    parameters = tuple(torch.rand_like(p).requires_grad_() for p in norm.parameters())

    def normed(x, *values):
        return torch.func.functional_call(norm, dict(zip(("weight", "bias"), values, strict=False)), x)

    assert torch.autograd.gradcheck(normed, (x, *parameters))
    assert torch.autograd.gradgradcheck(normed, (x, *parameters))
    with pytest.raises(ValueError, match="one pixel"):
        norm(torch.ones(1, 3, 1, 1).contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("affine", [False, True])
def test_compiled_by_image_instance_norm_is_the_same_function(affine):
    """From what a compiler merges; batch norm it would leave as it is."""
    torch.manual_seed(0)
    norm = InstanceNormByImage(3, affine=affine, dtype=torch.float64)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter)
    plain = torch.nn.InstanceNorm2d(3, affine=affine, dtype=torch.float64)
    plain.load_state_dict(norm.state_dict())
    graphs = []

    def backend(graph, inputs):
        graphs.append(str(graph.graph))
        return graph.forward

    norm.compile(backend=backend, fullgraph=True)
    shape = (2, 3, 4, 5)
    x = torch.rand(shape, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(norm(x), plain(x))
    assert "var_mean" in graphs[0] and "batch_norm" not in graphs[0]
    assert norm(x.bfloat16()).dtype == torch.bfloat16


def test_other_devices_keep_their_layers():
    for norm, layout in (("instance", torch.contiguous_format), ("batch", torch.channels_last)):
        arguments = {"filters": 4, "blocks": 1, "upsample": "resize", "norm": norm}
        plain = build("generator", "resnet", arguments)
        assert for_training(plain, torch.device("cuda")) is plain
        assert kinds(plain, EnlargingConv2d) == kinds(plain, InstanceNorm) == 0
        assert plain.layers[1].weight.is_contiguous(memory_format=layout)


def test_an_enlargement_that_is_another_is_left_alone():
    layers = [
        torch.nn.Upsample(scale_factor=3),
        torch.nn.Conv2d(2, 2, 3, padding=1),
        torch.nn.Upsample(scale_factor=2),
        torch.nn.Conv2d(2, 2, 5, padding=2),
    ]
    trained = for_training(torch.nn.Sequential(*layers), CPU)
    assert [type(layer) for layer in trained] == [type(layer) for layer in layers]


def test_one_pixel_has_no_instance_norm():
    """As torch's own layer has it; group norm would give zeros without a word."""
    with pytest.raises(ValueError, match="one pixel"):
        InstanceNorm(2)(torch.ones(1, 2, 1, 1))
