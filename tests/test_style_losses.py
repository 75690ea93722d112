"""Content, style and total-variation losses against plain loops, and their gradients against differences."""

import numpy as np
import pytest
import torch

from cyclegan.losses import content_loss, gram, style_loss, total_variation


def plain_content(x, y):
    total = 0.0
    for a, b in zip(x.reshape(-1), y.reshape(-1), strict=True):
        total += (a - b) ** 2
    return total / x.size


def plain_gram(features, guide=None):
    """(C, H, W): every pair of channels, place by place."""
    channels, height, width = features.shape
    guide = np.ones((height, width)) if guide is None else guide
    matrix = np.zeros((channels, channels))
    for i in range(channels):
        for j in range(channels):
            for y in range(height):
                for x in range(width):
                    matrix[i, j] += guide[y, x] ** 2 * features[i, y, x] * features[j, y, x]
    return matrix / (channels * (guide**2).sum())


def plain_variation(image):
    channels, height, width = image.shape
    across = [
        abs(image[c, y, x + 1] - image[c, y, x])
        for c in range(channels)
        for y in range(height)
        for x in range(width - 1)
    ]
    down = [
        abs(image[c, y + 1, x] - image[c, y, x])
        for c in range(channels)
        for y in range(height - 1)
        for x in range(width)
    ]
    return sum(across) / len(across) + sum(down) / len(down)


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_content_is_the_mean_squared_difference():
    x, y = some(2, 3, 4, 5), some(2, 3, 5, 4).reshape(2, 3, 4, 5)
    assert content_loss(x, y).item() == pytest.approx(plain_content(x.numpy(), y.numpy()), rel=1e-12)
    assert content_loss(x, x) == 0


def test_gram_is_divided_by_channels_and_places():
    x = some(2, 3, 4, 5)
    expected = np.stack([plain_gram(each) for each in x.numpy()])
    np.testing.assert_allclose(gram(x).numpy(), expected, rtol=1e-12)
    # the same texture twice as large has the same style
    torch.testing.assert_close(gram(torch.cat([x, x], dim=3)), gram(x))


def test_a_guided_gram_counts_its_region_only():
    x, guide = some(1, 3, 4, 5), torch.rand(1, 1, 4, 5, dtype=torch.float64)
    expected = plain_gram(x[0].numpy(), guide[0, 0].numpy())
    np.testing.assert_allclose(gram(x, guide)[0].numpy(), expected, rtol=1e-12)
    left = torch.zeros(1, 1, 4, 5, dtype=torch.float64)
    left[..., :2] = 1
    torch.testing.assert_close(gram(x, left), gram(x[..., :2]))


def test_style_is_the_weighted_squared_difference_of_grams():
    grams = {"relu1_1": some(2, 3, 3), "relu2_1": some(2, 4, 4)}
    targets = {"relu1_1": some(1, 3, 3), "relu2_1": some(1, 4, 4)}
    weights = {"relu1_1": 0.25, "relu2_1": 3.0}

    def plain(weights):
        images = []
        for n in range(2):
            total = 0.0
            for layer, weight in weights.items():
                difference = grams[layer][n].numpy() - targets[layer][0].numpy()
                total += weight * sum(value**2 for value in difference.reshape(-1))
            images.append(total)
        return sum(images) / 2

    assert style_loss(grams, targets, weights).item() == pytest.approx(plain(weights), rel=1e-12)
    assert style_loss(grams, targets).item() == pytest.approx(plain(dict.fromkeys(grams, 0.5)), rel=1e-12)


def test_total_variation_is_the_mean_step_between_neighbours():
    x = some(1, 3, 4, 5)
    assert total_variation(x).item() == pytest.approx(plain_variation(x[0].numpy()), rel=1e-12)
    assert total_variation(torch.ones(1, 3, 4, 4)) == 0


LOSSES = {
    "content": lambda x: content_loss(x, some(1, 2, 4, 3)),
    "style": lambda x: style_loss({"a": gram(x)}, {"a": gram(some(1, 2, 5, 5))}),
    "guided style": lambda x: style_loss(
        {"a": gram(x, some(1, 1, 4, 3).abs())}, {"a": gram(some(1, 2, 5, 5))}
    ),
    "total variation": total_variation,
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name):
    loss, x = LOSSES[name], some(1, 2, 4, 3).flip(3).requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(x), x)
    step = 1e-6
    for place in np.ndindex(*x.shape):
        moved = torch.zeros_like(x)
        moved[place] = step
        slope = (loss(x.detach() + moved) - loss(x.detach() - moved)) / (2 * step)
        assert gradient[place].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-8)
    assert gradient.abs().sum() > 0
