"""Discriminators beside the papers' layers, written out with torch.nn.functional, at fp64: scores and gradients.

Counts and receptive fields are compared elsewhere (test_networks, test_transcriptions); they would not tell
another slope, a norm at the wrong layer or another order of strides.
"""

import copy
import functools
import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cyclegan.losses import scales
from cyclegan.networks import build
from cyclegan.networks.spectral import is_normalized
from cyclegan.networks.trained import for_training

NORMS = ["instance", "instance_affine", "batch", "none"]
leaky = functools.partial(F.leaky_relu, negative_slope=0.2)


def drawn(name, **arguments):
    """A discriminator in fp64 whose every parameter matters: no bias is 0, no scale of a norm is 1."""
    network = build("discriminator", name, {"filters": 4, **arguments}).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 0.5)
    return network


def convolutions(network):
    """Weight and bias of each, in order."""
    return [(layer.weight, layer.bias) for layer in network.modules() if isinstance(layer, nn.Conv2d)]


def shifts(network):
    """Scale and shift of each norm, in order; they end with those that have none."""
    norms = (layer for layer in network.modules() if isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d))
    return itertools.chain(((layer.weight, layer.bias) for layer in norms), itertools.repeat((None, None)))


def normed(x, norm, shift):
    if norm == "batch":
        return F.batch_norm(x, None, None, *shift, training=True)
    return x if norm == "none" else F.instance_norm(x, weight=shift[0], bias=shift[1])


def plain_body(x, weights, norms, norm):
    """C64-C128-...: all halve but the last, and the first has no norm (CycleGAN §7.2, pix2pix §6.1.2)."""
    (weight, bias), *others = weights
    x = leaky(F.conv2d(x, weight, bias, stride=2, padding=1))
    for weight, bias in others[:-1]:
        x = leaky(normed(F.conv2d(x, weight, bias, stride=2, padding=1), norm, next(norms)))
    weight, bias = others[-1]
    return leaky(normed(F.conv2d(x, weight, bias, stride=1, padding=1), norm, next(norms)))


def plain_patchgan(x, weights, norms, norm):
    weight, bias = weights[-1]
    return F.conv2d(plain_body(x, weights[:-1], norms, norm), weight, bias, padding=1)


def plain_half(x):
    """The mean of those pixels of 3x3 that are in the picture, at every second one (pix2pixHD's code)."""
    ones = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype)
    total, count = (F.conv2d(y, ones, None, 2, 1, groups=x.shape[1]) for y in (x, torch.ones_like(x)))
    return total / count


def plain_multiscale(x, weights, norms, norm, many):
    found, each = [], len(weights) // many
    for scale in range(many):
        found.append(plain_patchgan(x, weights[scale * each : (scale + 1) * each], norms, norm))
        x = plain_half(x)
    return tuple(found)


def plain_pixel(x, weights, norms, norm):
    """pix2pix §6.1.2: C64-C128 of single pixels, no norm after the first."""
    first, second, last = weights
    x = leaky(F.conv2d(x, *first))
    return F.conv2d(leaky(normed(F.conv2d(x, *second), norm, next(norms))), *last)


def plain_batch_statistics(x, weights, norms, norm, others=()):
    """UVCGANv2 §3.2; the head's slope is torch's own, as in its code."""
    *body, first, last = weights
    made = []
    for features in plain_body(x, body, norms, norm).split(1):
        deviation = torch.cat([features, *others]).var(dim=0, unbiased=False).add(1e-6).sqrt().mean()
        seen = torch.cat([features, torch.ones_like(features[:, :1]) * deviation], dim=1)
        made.append(F.conv2d(F.leaky_relu(F.conv2d(seen, *first, padding=1), 0.01), *last, padding=1))
    return torch.cat(made)


def hold(judge, plain, parameters, size):
    """Scores, and their gradients by the images and by each parameter."""
    images = torch.rand(2, 3, *size, dtype=torch.float64).mul(2).sub(1).requires_grad_()
    found, expected = (scales(made(images)) for made in (judge, plain))
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=1e-8)
    toward = [torch.randn_like(scores) for scores in expected]
    one, other = (torch.autograd.grad(made, [images, *parameters], toward) for made in (found, expected))
    assert float(other[0].abs().mean()) > 1e-3
    for gradient, wanted in zip(one, other, strict=True):
        torch.testing.assert_close(gradient, wanted, atol=1e-10, rtol=1e-7)


def hold_both(network, plain, size):
    """The network as it is built, and with the layers that it is trained with on a CPU."""
    for judge in (network, for_training(copy.deepcopy(network), torch.device("cpu"))):
        written_out = functools.partial(plain, weights=convolutions(judge), norms=shifts(judge))
        hold(judge, written_out, list(judge.parameters()), size)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_patchgan_is_pix2pixs(layers, norm):
    network = drawn("patchgan", filters=2, layers=layers, norm=norm)
    # Twice as wide at each layer, up to eight times; a norm with a shift of its own leaves the bias out.
    widths = [2 * min(2**depth, 8) for depth in range(layers + 1)]
    weights = convolutions(network)
    assert [len(weight) for weight, _ in weights] == [*widths, 1]
    has_bias = [True, *[norm != "batch"] * layers, True]
    assert [bias is not None for _, bias in weights] == has_bias
    hold_both(network, functools.partial(plain_patchgan, norm=norm), (52, 61))


@pytest.mark.parametrize("norm", NORMS)
def test_each_scale_is_a_patchgan_on_half_of_the_one_before(norm):
    network = drawn("multiscale", layers=2, scales=3, norm=norm)
    hold_both(network, functools.partial(plain_multiscale, norm=norm, many=3), (49, 58))


@pytest.mark.parametrize("norm", NORMS)
def test_pixel_gan_is_pix2pixs(norm):
    network = drawn("pixel", norm=norm)
    assert [bias is not None for _, bias in convolutions(network)] == [True, norm != "batch", norm != "batch"]
    hold_both(network, functools.partial(plain_pixel, norm=norm), (7, 9))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layers", [2, 3])
def test_batch_statistics_are_uvcgan2s(layers, norm):
    """Alone and beside three earlier ones; the body is all of a PatchGAN but the layer that makes scores."""
    network = drawn("batch_statistics", layers=layers, norm=norm)
    size, width = (33, 30), 4 * 2**layers
    hold_both(network, functools.partial(plain_batch_statistics, norm=norm), size)
    with torch.no_grad():
        shape = network.body(torch.zeros(1, 3, *size, dtype=torch.float64)).shape[2:]
        assert shape == (33 // 2**layers - 1, 30 // 2**layers - 1)
    queue = torch.randn(3, width, *shape, dtype=torch.float64)
    plain = functools.partial(
        plain_batch_statistics,
        weights=convolutions(network),
        norms=shifts(network),
        norm=norm,
        others=[queue],
    )
    hold(lambda x: network.judge(x, queue)[0], plain, list(network.parameters()), size)
    images = torch.randn(2, 3, *size, dtype=torch.float64)
    features = network.judge(images, queue)[1]
    body = plain_body(images, convolutions(network)[:-2], shifts(network), norm)
    torch.testing.assert_close(features, body, atol=1e-11, rtol=1e-8)


@pytest.mark.parametrize(("layers", "many"), [(1, 3), (3, 3), (2, 1)])
def test_heads_on_projected_features_halve_less_where_features_are_small(layers, many):
    """Strided layers, and scores; a later block of VGG-19, itself half the size, has one less, one at least."""
    network = build("discriminator", "projected", {"filters": 4, "layers": layers, "scales": many})
    network.calibrate(torch.rand(4, 3, 32, 32) * 2 - 1)
    network.eval()
    images = torch.rand(2, 3, 48, 40) * 2 - 1
    with torch.no_grad():
        found, features = network(images), network.features(images)
        assert len(found) == len(features) == many
        for block, (scores, x, head) in enumerate(zip(found, features, network.heads, strict=True)):
            mean, deviation = getattr(network, f"mean_{block}"), getattr(network, f"deviation_{block}")
            x = (x - mean) / deviation
            *strided, last = convolutions(head)
            assert len(strided) == max(1, layers - block)
            for weight, bias in strided:
                x = leaky(F.conv2d(x, weight, bias, stride=2, padding=1))
            torch.testing.assert_close(scores, F.conv2d(x, *last, padding=1), atol=1e-4, rtol=1e-4)


# --- spectral normalization

NORMALIZED = {
    "patchgan": ({"layers": 3}, functools.partial(plain_patchgan, norm="none")),
    "pixel": ({}, functools.partial(plain_pixel, norm="none")),
    "multiscale": ({"layers": 2, "scales": 2}, functools.partial(plain_multiscale, norm="none", many=2)),
    "batch_statistics": ({"layers": 2}, functools.partial(plain_batch_statistics, norm="none")),
}


def divided(weight):
    """By its largest singular value, as a matrix of a row for each output."""
    return weight / torch.linalg.svdvals(weight.flatten(1))[0]


def given_weights(layers):
    """Normal weights for all layers; the layers' own are what is made of them."""
    given = [torch.randn(layer.weight.shape, dtype=layer.weight.dtype) for layer in layers]
    with torch.no_grad():
        for layer, weight in zip(layers, given, strict=True):
            if is_normalized(layer):
                layer.weight = weight.clone()
            else:
                layer.weight.copy_(weight)
    return given


@pytest.mark.parametrize("name", NORMALIZED)
def test_weights_are_divided_by_their_largest_singular_value(name):
    """All of them but those of UVCGANv2's head; each pass while training is one power iteration."""
    arguments, plain = NORMALIZED[name]
    network = drawn(name, norm="none", spectral_norm=True, **arguments)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    given = given_weights(layers)
    images = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(300):
            network(images)
    free = 2 if name == "batch_statistics" else 0
    expected = [*map(divided, given[: len(given) - free]), *given[len(given) - free :]]
    network.eval()
    for layer, weight in zip(layers, expected, strict=True):
        torch.testing.assert_close(layer.weight.detach(), weight, atol=1e-8, rtol=1e-8)
    weights = [(weight, layer.bias) for weight, layer in zip(expected, layers, strict=True)]
    larger = torch.randn(2, 3, 40, 36, dtype=torch.float64)
    found, written_out = (scales(made) for made in (network(larger), plain(larger, weights, shifts(network))))
    for one, other in zip(found, written_out, strict=True):
        torch.testing.assert_close(one, other, atol=1e-8, rtol=1e-6)


def test_heads_on_projected_features_are_divided_by_default():
    network = build("discriminator", "projected", {"filters": 4})
    layers = [layer for layer in network.heads.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 5 and not any(is_normalized(layer) for layer in network.fixed[0].modules())
    given = given_weights(layers)
    for layer, weight in zip(layers, given, strict=True):
        for _ in range(300):
            layer.weight  # noqa: B018 - reading it while training is one power iteration
        torch.testing.assert_close(layer.weight.detach(), divided(weight), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NORMALIZED)
def test_weights_are_left_alone_by_default(name):
    network = drawn(name, norm="none", **NORMALIZED[name][0])
    assert not any(is_normalized(layer) for layer in network.modules())


def test_attention_is_divided_with_the_rest():
    """Of SAGAN's discriminator (Zhang et al. 2019, §4.1) no layer goes without."""
    network = drawn("patchgan", layers=2, attention=4, spectral_norm=True)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 4 + 4
    given = given_weights(layers)
    with torch.no_grad():
        for _ in range(300):
            network(torch.randn(1, 3, 24, 24, dtype=torch.float64))
    for layer, weight in zip(layers, given, strict=True):
        torch.testing.assert_close(layer.weight.detach(), divided(weight), atol=1e-8, rtol=1e-8)
