"""Attention, transformers, modulation and discriminators against the papers' formulas, written out plainly."""

import pytest
import torch
import torch.nn.functional as F
from test_network_zoo import JUDGES, SMALL, ZOO, awake
from torch.profiler import ProfilerActivity, profile
from torchvision.models import vgg19
from torchvision.transforms.functional import gaussian_blur

from cyclegan.losses import scales
from cyclegan.networks import build
from cyclegan.networks.attention import SelfAttention
from cyclegan.networks.layers import initialize
from cyclegan.networks.modnet import ModulatedConvolution
from cyclegan.networks.transformer import TransformerBlock, positions


def count(network):
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "published"),
    [
        ("generator", "unet", {"depth": 7}, 41_825_667),
        ("generator", "unet", {"depth": 8}, 54_409_603),
        # What the papers' published code builds with their settings; the first is the half of what the
        # 68 million of UVCGAN's table leave beside two PatchGANs.
        ("generator", "vit_unet", {}, 31_360_239),
        ("generator", "modnet", {}, 32_192_231),
        # MUNIT's encoder in place of the 384 numbers of a token: a 7x7 convolution, four of 4x4 with stride 2,
        # and a linear layer.
        (
            "generator",
            "modnet",
            {"style": "reference"},
            32_192_231
            - 384
            + (49 * 3 * 48 + 48)
            + (16 * 48 * 96 + 96)
            + (16 * 96 * 192 + 192)
            + 2 * (16 * 192 * 192 + 192)
            + (192 * 384 + 384),
        ),
        ("discriminator", "pixel", {}, 8_705),
        ("discriminator", "batch_statistics", {}, 5_125_569),
        ("discriminator", "multiscale", {}, 3 * 2_764_737),
        # On VGG-19's 64 features two strided layers, on its 128 one, and a score each; all convolutions of 4x4.
        (
            "discriminator",
            "projected",
            {},
            16 * (64 * 64 + 64 * 128 + 128 + 128 * 64 + 64) + 64 + 128 + 64 + 2,
        ),
        # SAGAN: four 1x1 convolutions to and from C / 8 of C = 256 features, with biases, and gamma.
        ("generator", "resnet", {"attention": 4}, 11_378_179 + 4 * 256 * 32 + 3 * 32 + 256 + 1),
    ],
)
def test_parameter_counts(kind, name, arguments, published):
    with torch.device("meta"):
        assert count(build(kind, name, arguments)) == published


def random(network):
    return awake(initialize(network, std=0.3))


def test_self_attention_is_sagans():
    """Eq. 1 to 3, position by position."""
    layer = random(SelfAttention(16))
    x = torch.randn(2, 16, 3, 5)
    flat = x.flatten(2)
    f, g, h = (part.weight[:, :, 0, 0] @ flat + part.bias[:, None] for part in (layer.f, layer.g, layer.h))
    expected = torch.empty_like(flat)
    for n in range(2):
        for j in range(15):
            weights = torch.exp(f[n].T @ g[n, :, j])
            seen = (h[n] * (weights / weights.sum())).sum(dim=1)
            made = layer.v.weight[:, :, 0, 0] @ seen + layer.v.bias
            expected[n, :, j] = flat[n, :, j] + layer.gamma * made
    torch.testing.assert_close(layer(x), expected.unflatten(2, (3, 5)), atol=1e-5, rtol=1e-5)


def test_self_attention_begins_as_nothing():
    x = torch.randn(1, 8, 4, 4)
    assert torch.equal(initialize(SelfAttention(8))(x), x)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_self_attention_keeps_no_map_of_all_pairs(layout):
    """Which of 128 x 128 positions would be a gigabyte, and of a picture's more than any machine has."""
    layer = random(SelfAttention(16)).to(memory_format=layout)
    x = torch.randn(1, 16, 48, 48).to(memory_format=layout)
    pairs = x[0, 0].numel() ** 2 * x.element_size()
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        layer(x)
    assert 0 < max(event.self_cpu_memory_usage for event in seen.events()) < pairs / 8


@pytest.mark.parametrize(
    "kind", [kind for kind, (_, more) in {**ZOO, **JUDGES}.items() if "attention" in more]
)
def test_with_attention_a_network_begins_as_the_one_without(kind):
    name, arguments = {**ZOO, **JUDGES}[kind]
    of = "generator" if kind in ZOO else "discriminator"
    network = initialize(build(of, name, arguments), std=0.2)
    without = build(of, name, {key: value for key, value in arguments.items() if key != "attention"})
    # Layers behind an attention have other numbers in their names, and the same order.
    kept = [value for key, value in network.state_dict().items() if not owner(network, key)]
    without.load_state_dict(dict(zip(without.state_dict(), kept, strict=True)))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        pairs = zip(*(scales(each.eval()(images)) for each in (network, without)), strict=True)
        for found, expected in pairs:
            torch.testing.assert_close(found, expected)


def owner(network, parameter):
    """The layer of self-attention that a parameter belongs to, if any."""
    for name, module in network.named_modules():
        if isinstance(module, SelfAttention) and parameter.startswith(f"{name}."):
            return module
    return None


def test_a_transformer_block_is_pytorchs():
    ours = random(TransformerBlock(24, 3))
    theirs = torch.nn.TransformerEncoderLayer(
        24, 3, 96, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    torch.nn.init.constant_(ours.gate, 1.0)
    torch.nn.init.normal_(ours.norm_forward.weight)
    with torch.no_grad():
        theirs.self_attn.in_proj_weight.copy_(ours.qkv.weight)
        theirs.self_attn.in_proj_bias.copy_(ours.qkv.bias)
        theirs.self_attn.out_proj.load_state_dict(ours.joined.state_dict())
        theirs.linear1.load_state_dict(ours.feed_forward[0].state_dict())
        theirs.linear2.load_state_dict(ours.feed_forward[2].state_dict())
        theirs.norm1.load_state_dict(ours.norm_attention.state_dict())
        theirs.norm2.load_state_dict(ours.norm_forward.state_dict())
    x = torch.randn(2, 7, 24)
    torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)
    torch.nn.init.zeros_(ours.gate)
    assert torch.equal(ours(x), x)


def test_positions_span_the_map_whatever_its_size():
    for height, width in ((2, 2), (5, 3), (1, 4), (16, 24)):
        found = positions(torch.zeros(1, 8, height, width)).view(height, width, 2)
        rows, columns = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
        torch.testing.assert_close(found[:, 0, 0], rows)
        torch.testing.assert_close(found[0, :, 1], columns)


def modulated(x, style, layer):
    """StyleGAN2 §2.2: w' = s w (eq. 1), w'' = w' / sqrt(sum w'^2 + e) (eq. 3), one convolution an image."""
    made = []
    for image, code in zip(x, style, strict=True):
        scale = 1 + layer.gate * (layer.affine.weight @ code + layer.affine.bias)
        weight = layer.convolution.weight * scale[None, :, None, None]
        weight = weight / (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-6).sqrt()
        made.append(F.conv2d(image[None], weight, layer.bias, padding=1))
    return torch.cat(made)


def test_modulation_is_stylegan2s():
    layer = random(ModulatedConvolution(6, 5, 8))
    torch.nn.init.normal_(layer.bias)
    x, style = torch.randn(3, 6, 7, 9), torch.randn(3, 8)
    expected = modulated(x, style, layer)
    torch.testing.assert_close(layer(x, style), expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(layer(x, style.flip(0)), expected)


def test_demodulation_is_at_fp32_whatever_the_convolutions_are_at():
    """In bf16 the norm itself would be another, before it is rounded."""
    torch.manual_seed(0)
    layer = ModulatedConvolution(64, 32, 8)
    torch.nn.init.normal_(layer.convolution.weight, std=1e-3)
    x, style = torch.randn(2, 64, 5, 5), torch.randn(2, 8)
    power = layer.convolution.weight.detach().square().sum(dim=(2, 3))

    def norm(dtype):
        return torch.rsqrt(torch.ones(2, 64, dtype=dtype) @ power.to(dtype).T + 1e-6).bfloat16()

    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        made, plain = layer(x, style), layer.convolution(x)
    assert torch.equal(made, plain * norm(torch.float32)[:, :, None, None])
    assert not torch.equal(norm(torch.float32), norm(torch.bfloat16))


def plain_blocks(sequence, x, norm):
    """Norm, 3x3 convolution, leaky ReLU (slope 0.01), twice."""
    for layer in sequence:
        if isinstance(layer, torch.nn.Conv2d):
            x = F.instance_norm(x) if norm else x
            x = F.leaky_relu(F.conv2d(x, layer.weight, layer.bias, padding=1), 0.01)
    return x


def plain_uvcgan(network, x, style=None):
    """UVCGAN's and UVCGANv2's generators as the papers draw them; the transformer's blocks are tested above."""
    norm = style is None
    down, vit = network.down, network.transformer
    x = F.leaky_relu(F.conv2d(x, down.first[0].weight, down.first[0].bias, padding=1), 0.01)
    kept = []
    for block, halve in zip(down.blocks, down.halve, strict=True):
        x = plain_blocks(block, x, norm)
        kept.append(x)
        x = F.conv2d(x, halve.weight, halve.bias, stride=2)
    n, c, h, w = x.shape
    grid = torch.cartesian_prod(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w))
    places = torch.sin(grid @ vit.position.weight.T + vit.position.bias)
    tokens = torch.cat([places.expand(n, h * w, -1), x.permute(0, 2, 3, 1).reshape(n, h * w, c)], dim=2)
    tokens = tokens @ vit.enter.weight.T + vit.enter.bias
    if style is not None:
        tokens = torch.cat([tokens, style[:, None]], dim=1)  # the place of a token without a place is free
    tokens = vit.blocks(tokens)
    if style is not None:
        tokens, style = tokens[:, :-1], tokens[:, -1]
    x = (tokens @ vit.leave.weight.T + vit.leave.bias).view(n, h, w, c).permute(0, 3, 1, 2)
    for level in reversed(range(len(kept))):
        layer = network.enlarge[level][1]
        x = F.conv2d(F.interpolate(x, scale_factor=2), layer.weight, layer.bias, padding=1)
        x = torch.cat([x, kept[level]], dim=1)
        if style is None:
            x = plain_blocks(network.up[level], x, norm)
        else:
            for convolution in (network.up[level].first, network.up[level].second):
                x = F.leaky_relu(modulated(x, style, convolution), 0.01)
    return torch.tanh(F.conv2d(x, network.last.weight, network.last.bias))


@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_vit_unet_is_uvcgans(size):
    network = random(build("generator", "vit_unet", {**SMALL, "depth": 3, "blocks": 2}))
    images = torch.randn(2, 3, *size)
    torch.testing.assert_close(network(images), plain_uvcgan(network, images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("size", [(32, 32), (16, 48)])
def test_modnet_is_uvcgan2s(size):
    network = random(build("generator", "modnet", {**SMALL, "depth": 3, "blocks": 2}))
    images = torch.randn(2, 3, *size)
    style = network.style_code.expand(2, -1)
    torch.testing.assert_close(network(images), plain_uvcgan(network, images, style), atol=2e-4, rtol=0)


def test_a_reference_gives_each_image_its_own_style():
    network = random(build("generator", "modnet", {**SMALL, "depth": 3, "style": "reference"})).eval()
    images, references = torch.randn(2, 3, 32, 32), torch.randn(2, 3, 40, 24)
    made = network(images, references)
    codes = network.style_of(references)
    torch.testing.assert_close(codes.mean(dim=1), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(made, plain_uvcgan(network, images, codes), atol=2e-4, rtol=0)
    assert not torch.allclose(made, network(images, references.flip(0)), atol=1e-3)
    network.use_style_of(references[:1].split(1))
    torch.testing.assert_close(network(images)[0], made[0], atol=2e-4, rtol=0)
    network.use_style_of(references.split(1))
    torch.testing.assert_close(network.style_code, codes.mean(dim=0))


def test_spectral_norm_makes_the_largest_singular_value_one():
    network = initialize(build("discriminator", "patchgan", {"filters": 8, "spectral_norm": True}))
    for _ in range(30):
        network(torch.randn(1, 3, 32, 32))
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            largest = float(torch.linalg.matrix_norm(module.weight.detach().flatten(1), ord=2))
            assert largest == pytest.approx(1, abs=0.05)
            raw = module.parametrizations.weight.original
            assert float(raw.detach().std()) == pytest.approx(0.02, rel=0.2)


def test_pixel_gan_sees_one_pixel():
    network = random(build("discriminator", "pixel", {"filters": 4, "norm": "none"}))
    images = torch.randn(1, 3, 8, 8)
    first, second, last = (layer for layer in network.layers if isinstance(layer, torch.nn.Conv2d))
    pixel = images[0, :, 3, 5]
    for layer in (first, second):
        pixel = F.leaky_relu(layer.weight[:, :, 0, 0] @ pixel + layer.bias, 0.2)
    expected = last.weight[:, :, 0, 0] @ pixel + last.bias
    torch.testing.assert_close(network(images)[0, :, 3, 5], expected, atol=1e-5, rtol=1e-5)


def test_each_scale_judges_a_smaller_image():
    network = random(build("discriminator", "multiscale", {"filters": 4, "layers": 2, "scales": 3}))
    images = torch.randn(2, 3, 64, 64)
    half = torch.zeros(2, 3, 32, 32)
    for y in range(32):
        for x in range(32):  # the mean of the pixels that are there, of 3x3
            window = images[..., max(0, 2 * y - 1) : 2 * y + 2, max(0, 2 * x - 1) : 2 * x + 2]
            half[..., y, x] = window.mean(dim=(2, 3))
    scores = network(images)
    assert [tuple(s.shape[2:]) for s in scores] == [(14, 14), (6, 6), (2, 2)]
    torch.testing.assert_close(scores[0], network.judges[0](images))
    torch.testing.assert_close(scores[1], network.judges[1](half), atol=1e-5, rtol=1e-4)


def test_batch_statistics_are_the_minibatch_deviation():
    """Of one image and the queue, as UVCGANv2 computes it over a batch of one and its cache."""
    network = random(build("discriminator", "batch_statistics", {"filters": 4, "layers": 2}))
    images, queue = torch.randn(2, 3, 32, 32), torch.randn(3, 16, 7, 7)
    scores, features = network.judge(images, queue)
    for n in range(2):
        batch = torch.cat([features[n : n + 1], queue])
        deviation = ((batch - batch.mean(dim=0)).square().mean(dim=0) + 1e-6).sqrt().mean()
        joined = torch.cat([features[n], deviation.expand(1, 7, 7)])[None]
        torch.testing.assert_close(scores[n], network.head(joined)[0], atol=1e-5, rtol=1e-4)
    alone = network.judge(images[:1], queue)[0]
    torch.testing.assert_close(alone, scores[:1], atol=1e-5, rtol=1e-4)
    assert not torch.allclose(network(images), scores, atol=1e-3)


def test_projected_heads_see_vgg_features_in_units_of_their_spread():
    """Features by torchvision's VGG-19 with the same weights, standardized by hand."""
    network = random(build("discriminator", "projected", {"filters": 4, "scales": 2, "spectral_norm": False}))
    vgg = network.fixed[0]
    layers = vgg19(weights=None).features[:9]  # up to relu2_2
    theirs = [layer for layer in layers if isinstance(layer, torch.nn.Conv2d)]
    for ours, layer in zip(vgg.convolutions.values(), theirs, strict=False):
        layer.load_state_dict(ours.state_dict())
    mean = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)  # of B, G, R

    @torch.no_grad()
    def features(images):
        x = 127.5 * (images.flip(1) + 1) - mean
        return layers[:4](x), layers(x)

    seen, images = torch.rand(4, 3, 32, 32) * 2 - 1, torch.rand(2, 3, 32, 32) * 2 - 1
    network.calibrate(seen)
    for head, scores, of_seen, of_images in zip(
        network.heads, network(images), features(seen), features(images), strict=True
    ):
        channels = of_seen.transpose(0, 1).flatten(1)
        spread = channels.std(dim=1)
        spread = torch.maximum(spread, 0.05 * spread.mean()).view(1, -1, 1, 1)
        expected = head((of_images - channels.mean(dim=1).view(1, -1, 1, 1)) / spread)
        torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)


def test_projected_looks_at_detail_without_colours():
    """What it is shown, by torchvision's blur and hand, to the same network without the setting."""
    plain, fine = (build("discriminator", "projected", {"filters": 4, "detail": d}) for d in (0.0, 3.0))
    fine.load_state_dict(plain.state_dict())
    images = torch.rand(2, 3, 32, 32) * 2 - 1
    shown = (2 * (images - gaussian_blur(images, 13, 3.0))).clamp(-1, 1)
    assert shown.abs().max() == 1
    for expected, found in zip(plain(shown), fine(images), strict=True):
        torch.testing.assert_close(found, expected)
    light = (images * 0.2 + 0.5) + torch.tensor([0.1, -0.2, 0.1]).view(1, 3, 1, 1)
    for before, after in zip(fine(images * 0.2), fine(light), strict=True):
        torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)


def test_projected_learns_in_its_heads_alone():
    network = build("discriminator", "projected", {})
    names = [name for name, _ in network.named_parameters()] + list(network.state_dict())
    assert names and all(name.startswith(("heads", "mean", "deviation")) for name in names)
    network.requires_grad_(True)
    network(torch.zeros(1, 3, 32, 32))[0].sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in network.fixed[0].parameters())


@pytest.mark.parametrize(
    "kind", [kind for kind, (_, more) in {**ZOO, **JUDGES}.items() if "attention" in more]
)
def test_attention_is_on_the_map_that_is_named(kind):
    """Of each scale that has it: which begins as nothing would not be missed."""
    name, arguments = {**ZOO, **JUDGES}[kind]
    network = build("generator" if kind in ZOO else "discriminator", name, arguments)
    sides = []
    for layer in network.modules():
        if isinstance(layer, SelfAttention):
            layer.register_forward_pre_hook(lambda _, inputs: sides.append(inputs[0].shape[2:]))
    with torch.no_grad():
        network(torch.zeros(1, 3, 64, 64))
    side = 64 // arguments["attention"]
    assert sides == [(side, side)] * arguments.get("scales", 1)
