"""Convolutions by Winograd's products compute what torch's do, both ways; fp64 tells rounding from error."""

import copy

import pytest
import torch
import torch.nn.functional as F
from convolutions import (
    assert_gradients_have_gradients_and_each_can_be_had_alone,
    assert_same_both_ways,
    both_ways,
)

from cyclegan.networks import winograd
from cyclegan.networks.trained import for_training
from cyclegan.networks.winograd import WinogradConv2d, saves_time

# Sizes that tiles fill and that they do not, one pixel of output, and several images to a piece.
SHAPES = [(1, 5, 18, 18), (2, 5, 9, 14), (3, 5, 7, 4), (1, 5, 3, 30)]


@pytest.fixture
def always(monkeypatch):
    """Small layers, too; in pieces of one, two or many tiles."""
    monkeypatch.setattr(winograd, "saves_time", lambda *_: True)


@pytest.mark.parametrize("piece_bytes", [1, 2 * 36 * 6 * 8, 2**22])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("taps", [3, 4])
def test_it_is_the_same_function_with_the_same_gradients(
    taps, padding, bias, piece_bytes, always, monkeypatch
):
    monkeypatch.setattr(winograd, "_PIECE_BYTES", piece_bytes)
    torch.manual_seed(0)
    layer = WinogradConv2d(5, 6, taps, padding=padding, bias=bias, dtype=torch.float64)
    for shape in SHAPES:
        if min(shape[2:]) + 2 * padding < taps:
            continue
        x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
        assert_same_both_ways(layer, x)


def test_gradients_have_gradients_and_each_can_be_had_alone(always):
    layer = WinogradConv2d(2, 3, 3, padding=1, dtype=torch.float64)
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    assert_gradients_have_gradients_and_each_can_be_had_alone(layer, x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_keep_their_layout(layout, always):
    x = torch.randn(2, 4, 9, 9).contiguous(memory_format=layout).requires_grad_()
    y = WinogradConv2d(4, 8, 3)(x)
    assert y.is_contiguous(memory_format=layout)
    assert torch.autograd.grad(y.sum(), x)[0].is_contiguous(memory_format=layout)


@pytest.mark.parametrize("taps", [3, 4])
def test_at_fp32_it_rounds_little_more_than_a_plain_convolution(taps):
    """Measured 1.6e-6 to 2.1e-6 of the result's deviation; a plain convolution's 0.2e-6 to 0.9e-6."""
    torch.manual_seed(0)
    x, weight = torch.randn(1, 256, 48, 48), 0.02 * torch.randn(256, 256, taps, taps)
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    layer = WinogradConv2d(256, 256, taps, padding=1, bias=False)
    layer.weight.data = weight
    assert saves_time(x.shape, weight.shape, 1)
    off, plain_off = ((y - exact).square().mean().sqrt() for y in (layer(x), F.conv2d(x, weight, padding=1)))
    # 1.8 and 1.4 times were measured with AVX2; with AVX512, where a plain convolution rounds less, 9.4 and 7.2.
    assert 0 < off < (12 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 2.5) * plain_off
    assert off < 3e-6 * exact.std()


def test_small_maps_few_channels_and_other_formats_go_the_plain_way(monkeypatch):
    monkeypatch.setattr(winograd._WinogradConvolution, "apply", lambda *_: pytest.fail("not the plain way"))
    for shape, outputs in (((1, 256, 4, 4), 256), ((1, 16, 64, 64), 16), ((1, 256, 64, 64), 3)):
        layer = WinogradConv2d(shape[1], outputs, 3, padding=1)
        assert layer(torch.zeros(shape)).shape == (1, outputs, *shape[2:])
    layer = WinogradConv2d(256, 256, 3, padding=1)
    x = torch.zeros(1, 256, 32, 32)
    compiled = torch.compile(layer, backend="eager")
    assert compiled(x).shape == x.shape
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    assert layer.to("meta")(x.bfloat16().to("meta")).device.type == "meta"
    with pytest.raises(RuntimeError, match="[Kk]ernel size"):
        WinogradConv2d(256, 256, 4)(torch.zeros(1, 256, 2, 64))


def test_a_network_trained_at_fp32_has_it_where_there_are_many_channels():
    torch.manual_seed(0)
    many, few = torch.nn.Conv2d(256, 256, 3, padding=1), torch.nn.Conv2d(256, 16, 3, padding=1)
    strided = torch.nn.Conv2d(256, 256, 4, stride=2)
    normalized = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(256, 256, 3))
    plain = torch.nn.Sequential(many, few, torch.nn.Conv2d(16, 256, 1), strided, normalized)
    for device, precision, expected in (("cpu", "no", 1), ("cpu", "bf16", 0), ("cuda", "no", 0)):
        trained = for_training(copy.deepcopy(plain), torch.device(device), precision)
        assert [type(layer) is WinogradConv2d for layer in trained] == [bool(expected), *[False] * 4]
        assert list(trained.state_dict()) == list(plain.state_dict())
    trained = for_training(copy.deepcopy(plain), torch.device("cpu")).double()
    x = torch.randn(1, 256, 48, 48, dtype=torch.float64)
    torch.testing.assert_close(trained(x), plain.double()(x), atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_result_is_the_same_bits_whatever_was_computed_before(dtype, always):
    """Resuming is exact; memory is shared from call to call, also between translating and training."""
    torch.manual_seed(0)
    layer, x = WinogradConv2d(8, 12, 3, padding=1, dtype=dtype), torch.randn(2, 8, 17, 9, dtype=dtype)
    first = both_ways(layer, x.requires_grad_())
    with torch.inference_mode():
        WinogradConv2d(24, 20, 4, dtype=dtype)(torch.full((1, 24, 30, 31), torch.nan, dtype=dtype))
    both_ways(WinogradConv2d(20, 24, 4, dtype=dtype), torch.rand(3, 20, 40, 21, dtype=dtype).requires_grad_())
    assert all(torch.equal(one, other) for one, other in zip(first, both_ways(layer, x), strict=True))
