"""On photographs, each method does what no blur can: networks, discriminators, penalties, pre-training.

Their formulas and parameter counts are compared with the papers' elsewhere (test_transcriptions, test_losses);
here a method that had become a smoothing filter, or a constant, would show.
"""

import cv2
import numpy as np
import pytest
import torch
from test_network_zoo import JUDGES, ZOO

from cyclegan.config import LossSettings, PretrainSettings
from cyclegan.datasets.cards import load_card
from cyclegan.datasets.making.lowpoly import lowpoly
from cyclegan.datasets.making.originals import original_file
from cyclegan.datasets.making.strokes import strokes
from cyclegan.images import read_image, resize, to_tensor
from cyclegan.losses import (
    DRAWS,
    counterfeits,
    diff_augment,
    gradient_penalty,
    r1_penalty,
    scales,
    total_variation,
    zero_centred_penalty,
)
from cyclegan.networks import build
from cyclegan.networks.layers import blur, initialize
from cyclegan.training.objectives import DiscriminatorObjective
from cyclegan.training.perceptual import Perceptual
from cyclegan.training.pretraining import masks

SIGMAS = (1, 2, 4)


@pytest.fixture(scope="module")
def crops():
    """(48, 3, 32, 32) of four photographs; the first half of each is for fitting, the second for judging."""
    found = []
    for original in load_card("photo2lowpoly").source.originals:
        if any(name in original.file for name in ("chelsea", "coffee", "astronaut", "china")):
            pixels = read_image(original_file(original)).pixels
            small = resize(pixels, pixels.shape[0] // 2, pixels.shape[1] // 2)
            tops = [(row, column) for row in range(16, 112, 32) for column in range(16, 144, 32)]
            found += [to_tensor(small[y : y + 32, x : x + 32]) for y, x in tops]
    return torch.stack(found)


def blurred(images, sigma):
    """(N, 3, H, W), as OpenCV blurs."""
    moved = [cv2.GaussianBlur(image.permute(1, 2, 0).numpy(), (0, 0), sigma) for image in images]
    return torch.from_numpy(np.stack(moved)).permute(0, 3, 1, 2)


def kept(made, target, sigma):
    """Share of the target's fine detail that is there: each image less its blur, projected on the target's."""
    fine, wanted = (images - blurred(images, sigma) for images in (made, target))
    return float((fine * wanted).sum() / wanted.square().sum())


def blurs(images, target, sigma):
    """Of ``sigma`` and wider, each channel in the colours that come nearest to the target."""
    for wide in SIGMAS[SIGMAS.index(sigma) :]:
        found = zip(blurred(images, wide).unbind(1), target.unbind(1), strict=True)
        yield torch.stack([torch.from_numpy(nearest(*map(np.asarray, both))) for both in found], dim=1)


def triangulated(images):
    """(N, 3, H, W) as low-poly pictures."""
    squares = (np.rint((image.permute(1, 2, 0).numpy() + 1) * 127.5).astype(np.uint8) for image in images)
    return torch.stack([to_tensor(lowpoly(square, np.random.default_rng(0))) for square in squares])


def nearest(channel, target):
    return np.polyval(np.polyfit(channel.ravel(), target.ravel(), 1), channel).astype(np.float32)


def has_detail(made, images, target, sigma=1):
    """Clearly more of it than any blur leaves."""
    return kept(made, target, sigma) > 1.25 * max(
        kept(b, target, sigma) for b in blurs(images, target, sigma)
    )


def distance(made, target):
    """What is fitted: the mean error, and that of detail, which is small and would be learned last."""
    error = made - target
    return error.abs().mean() + 2 * (error - blur(error, 4)).abs().mean()


def fit(network, draw, steps, rate):
    """To what ``draw()`` gives each time: the network's inputs, and what it is to make of them."""
    adam = torch.optim.Adam(network.parameters(), rate)
    decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.01, steps)
    for _ in range(steps):
        inputs, target = draw()
        adam.zero_grad()
        distance(network(*inputs), target).backward()
        adam.step()
        decay.step()
    network.eval()


def slow(kinds, *names):
    return [pytest.param(kind, marks=pytest.mark.slow) if kind in names else kind for kind in kinds]


# Wide enough for 32 pixels; instance norm takes away how light a crop is, which its negative is made of.
LEARNING = {
    "resnet": {"filters": 16, "norm": "none"},
    "unet": {"filters": 8},
    "vit_unet": {"filters": 8, "norm": "none"},
    "modnet": {"filters": 8, "depth": 3},
}

STD = {"resnet": 0.06, "unet": 0.1, "vit_unet": 0.1, "modnet": 0.1}  # about as wide as their inputs ask for


# The negative is the furthest from what a residual generator begins with.
@pytest.mark.parametrize(
    "kind",
    [kind for kind in slow(ZOO, "modnet, attention", "modnet, reference") if kind != "modnet, residual"],
)
def test_a_generator_learns_what_no_blur_gives(crops, kind):
    """The negative of crops that it has not seen, with its fine detail."""
    name, arguments = ZOO[kind]
    torch.manual_seed(0)
    network = initialize(build("generator", name, {**arguments, **LEARNING[name]}), STD[name])

    def reference(images):
        return (images,) if "reference" in kind else ()

    seen, new = crops[0::2], crops[1::2]

    def draw():
        images = seen[torch.randperm(len(seen))[:4]]
        return (images, *reference(-images)), -images

    fit(network, draw, steps=300, rate=5e-3)
    with torch.no_grad():
        made = network(new, *reference(-new))
    # All that a ResNet makes goes through maps of a quarter of the side.
    assert has_detail(made, new, -new, 2 if name == "resnet" else 1)
    *_, widest = blurs(new, -new, 4)
    assert (made + new).abs().mean() < 0.9 * (widest + new).abs().mean()


@pytest.mark.slow
def test_renderings_follow_their_references(crops):
    """Crops in the light of other crops: with the wrong reference the light is wrong, not only another."""
    torch.manual_seed(0)
    name, arguments = ZOO["modnet, reference"]
    network = initialize(build("generator", name, {**arguments, **LEARNING[name]}), std=0.1)
    lights = torch.tensor([[1.0, 0.3, 0.2], [0.2, 0.4, 1.0]])[:, :, None, None]

    def lit(images, which):
        return (images + 1) * lights[which] - 1

    seen, new = crops[0::2], crops[1::2]

    def draw():
        images, others = seen[torch.randperm(len(seen))].split((8, 16))
        which = torch.randint(2, (8,))
        return (images, lit(others[:8], which)), lit(images, which)

    fit(network, draw, steps=400, rate=3e-3)
    with torch.no_grad():
        for right in (0, 1):
            made = network(new, lit(new.roll(1, 0), right))
            of_right, of_wrong = ((made - lit(new, which)).abs().mean() for which in (right, 1 - right))
            assert of_right < 0.5 * of_wrong
            assert has_detail(made, new, lit(new, right))


@pytest.mark.parametrize("kind", slow(JUDGES, "pixel", "projected", "projected, attention"))
def test_a_discriminator_tells_photographs_from_their_blur(crops, kind):
    """PixelGAN sees one pixel at a time, so it is to tell colours from others."""
    name, arguments = JUDGES[kind]
    torch.manual_seed(0)
    if name != "projected":  # which has none
        arguments = {"norm": "none", **arguments}
    network = initialize(build("discriminator", name, arguments), std=0.1)
    fakes = -crops if name == "pixel" else blurred(crops, 1.5)
    if name == "projected":
        network.calibrate(torch.cat([crops, fakes]))
    seen, new = slice(0, None, 2), slice(1, None, 2)
    adam = torch.optim.Adam(network.parameters(), 4e-3)
    for _ in range(40):
        adam.zero_grad()
        found = zip(scales(network(crops[seen])), scales(network(fakes[seen])), strict=True)
        sum((real - 1).square().mean() + fake.square().mean() for real, fake in found).backward()
        adam.step()
    with torch.no_grad():
        real, fake = (scales(network.eval()(images[new])) for images in (crops, fakes))
    right = np.mean(
        [
            float((r.mean((1, 2, 3)) > f.mean((1, 2, 3))).float().mean())
            for r, f in zip(real, fake, strict=True)
        ]
    )
    assert right > 0.8


@pytest.mark.slow
def test_counterfeits_teach_how_a_domain_is_drawn(crops):
    """Low-poly pictures and photographs of other things: what is on them would do to tell them apart."""
    flat = triangulated(crops)
    shown, photographs, new = flat[:24], crops[24:], flat[24:]

    def right(weight):
        """Share of new low-poly pictures that are more so to the discriminator than their own counterfeits."""
        torch.manual_seed(0)
        network = initialize(build("discriminator", "projected", {"filters": 8, "detail": 3.0}), std=0.1)
        network.calibrate(torch.cat([shown, photographs]))
        losses = LossSettings(adversarial="hinge", lambda_edge_b=weight)
        objective = DiscriminatorObjective({"B": network}, losses)
        adam = torch.optim.Adam(network.parameters(), 4e-3)
        for number in range(40):
            adam.zero_grad()
            batch = {"real_b": shown, "real_a": photographs, "position": torch.arange(24) + number}
            objective(batch, {"fake_b": photographs}, torch.zeros(24, 1, 1, 1))[0].backward()
            adam.step()
        with torch.no_grad():
            better = []
            for first in (0, 1):
                wrong = counterfeits(new, crops[:24], torch.arange(24) + first)
                pairs = zip(network(new), network(wrong), strict=True)
                better.append(torch.stack([(r - f).mean((1, 2, 3)) for r, f in pairs]).sum(dim=0) > 0)
        return float(torch.cat(better).float().mean())

    assert right(0.0) < 0.8 < 0.9 < right(1.0)


def critic(loss, steps):
    """A small PatchGAN after so many steps down ``loss(network)``."""
    torch.manual_seed(0)
    arguments = {"filters": 8, "layers": 2, "norm": "none"}
    network = initialize(build("discriminator", "patchgan", arguments), std=0.1)
    adam = torch.optim.Adam(network.parameters(), 4e-3)
    for _ in range(steps):
        adam.zero_grad()
        loss(network).backward()
        adam.step()
    return network


@pytest.mark.parametrize("penalty", [r1_penalty, zero_centred_penalty])
def test_penalties_make_a_discriminator_smooth_and_leave_it_right(crops, penalty):
    fakes = blurred(crops, 1.5)

    def trained(weight):
        def loss(network):
            found = (network(crops) - 1).square().mean() + network(fakes).square().mean()
            mixed = (crops,) if penalty is r1_penalty else (crops, fakes, torch.rand(len(crops), 1, 1, 1))
            return found + weight * penalty(network, *mixed)

        network = critic(loss, steps=40)
        images = crops.clone().requires_grad_()
        network(images).mean((1, 2, 3)).sum().backward()
        right = (network(crops) - network(fakes)).mean().detach()
        return float(images.grad.square().sum((1, 2, 3)).mean()), float(right)

    (free, _), (held, right) = trained(0.0), trained(100.0)
    assert held < 0.5 * free and right > 0


def test_the_gradient_penalty_gives_a_critic_of_slope_one(crops):
    """WGAN-GP, where images lie between pictures and their blurs; so it tells them apart by their distance."""
    fakes = blurred(crops, 1.5)
    seen, new = slice(0, None, 2), slice(1, None, 2)

    def trained(weight):
        def loss(network):
            mix = torch.rand(len(crops[seen]), 1, 1, 1)
            found = network(fakes[seen]).mean() - network(crops[seen]).mean()
            return found + weight * gradient_penalty(network, crops[seen], fakes[seen], mix)

        network = critic(loss, steps=120)
        between = (0.5 * (crops[new] + fakes[new])).requires_grad_()
        network(between).mean((1, 2, 3)).sum().backward()
        slope = between.grad.square().sum((1, 2, 3)).sqrt()
        apart = (network(crops[new]) - network(fakes[new])).mean((1, 2, 3)).detach()
        distance = (crops[new] - fakes[new]).square().sum((1, 2, 3)).sqrt()
        return float(slope.mean()), float((apart > 0).float().mean()), float(apart.mean() / distance.mean())

    (free, _, _), (held, right, share) = trained(0.0), trained(10.0)
    assert free > 100 and abs(held - 1) < 0.4 and right > 0.7
    assert 0.3 < share < 1.2  # a slope of one is all it can have; of the patches' sum it would be 0.004


def test_with_differentiable_augmentation_few_pictures_are_not_learned_by_heart(crops):
    """Two halves of the same photographs are told apart by nothing else; from their blurs they still are."""
    shown, others = crops[0::2], crops[1::2]

    def gap(fakes, policy):
        """By how much more the pictures of ``shown`` are real to a discriminator."""
        rng = np.random.default_rng(0)

        def seen(images):
            return diff_augment(images, rng.random((len(images), DRAWS)).tolist(), policy)

        def loss(network):
            return (network(seen(shown)) - 1).square().mean() + network(seen(fakes)).square().mean()

        network = critic(loss, steps=200)
        with torch.no_grad():
            return float((network(shown) - network(fakes)).mean())

    policy = ("color", "translation", "cutout")
    by_heart = gap(others, policy)
    assert by_heart < 0.5 * gap(others, ())
    assert gap(blurred(others, 1.5), policy) > 2 * by_heart


def test_the_style_term_paints_and_the_content_term_keeps_what_is_there(crops):
    """Generators that learn by these terms alone; the style is a painting's, by brush strokes."""
    flower = next(o for o in load_card("photo2strokes").source.originals if "flower" in o.file)
    pixels = read_image(original_file(flower)).pixels[100:228, 200:328]
    painting = to_tensor(strokes(np.ascontiguousarray(pixels), np.random.default_rng(0)))[None]
    seen, new = crops[0::2], crops[1::2]
    layers = {"content_layers": ["relu3_1"], "style_layers": ["relu1_1", "relu2_1"]}

    def terms(**weights):
        found = Perceptual(LossSettings(**layers, **weights), torch.device("cpu"))
        found.learn("B", [painting])
        return found

    judge = terms(lambda_content=1.0, lambda_style=1.0)

    def distances(made):
        with torch.no_grad():
            found = judge("AtoB", new, made)[1]
        return float(found["content_ab"]), float(found["style_ab"])

    def learned(**weights):
        torch.manual_seed(0)
        arguments = {"filters": 16, "blocks": 2, "norm": "none", "residual": True}
        network = initialize(build("generator", "resnet", arguments), std=0.06)
        loss = terms(**weights)
        adam = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(80):
            images = seen[torch.randperm(len(seen))[:4]]
            adam.zero_grad()
            loss("AtoB", images, network(images))[0].backward()
            adam.step()
        with torch.no_grad():
            return network.eval()(new)

    content, style = distances(learned(lambda_style=1.0, lambda_content=1.0))
    alone, _ = distances(learned(lambda_style=1.0))
    assert style < 0.85 * min(distances(blurred(new, sigma))[1] for sigma in SIGMAS)
    assert content < 0.7 * alone


def test_total_variation_takes_noise_away_and_leaves_edges(crops):
    """Low-poly pictures under noise, each the nearest to it that varies little (Rudin, Osher and Fatemi)."""
    flat = triangulated(crops)
    noisy = flat + 0.15 * torch.randn(flat.shape, generator=torch.Generator().manual_seed(0))
    made = noisy.clone().requires_grad_()
    adam = torch.optim.Adam([made], 0.02)
    for _ in range(100):
        adam.zero_grad()
        (0.5 * (made - noisy).square().mean() + 0.1 * total_variation(made)).backward()
        adam.step()

    def error(images):
        return float((images - flat).square().mean())

    assert error(made.detach()) < 0.75 * min(error(blurred(noisy, sigma)) for sigma in (0.5, 0.7, 1, 1.5, 2))


def test_pretraining_fills_masked_patches_with_more_than_a_blur(crops):
    """UVCGAN's task on a few pictures; the blur is of what is left, weighted by where it is."""
    images = crops[::12]
    mask = masks(PretrainSettings(patch=8), 0, "a", range(len(images)), 32)
    assert 0.2 < 1 - float(mask.mean()) < 0.6
    torch.manual_seed(0)
    network = initialize(build("generator", "unet", {"filters": 8, "depth": 5}), std=0.1)
    adam = torch.optim.Adam(network.parameters(), 5e-3)
    for _ in range(60):
        adam.zero_grad()
        (network(images * mask) - images).abs().mean().backward()
        adam.step()
    with torch.no_grad():
        made = network.eval()(images * mask)

    def error(found):
        return float(((found - images).abs() * (1 - mask)).sum() / (1 - mask).sum())

    weights = mask.expand_as(images)
    best = min(error(blurred(images * mask, s) / blurred(weights, s).clamp(min=1e-3)) for s in (2, 4, 8))
    assert error(made) < 0.7 * best
