"""Differentiable augmentation, feature queues, masks: by formulas, and that only positions decide."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from test_step import batch, gradients, settings

from cyclegan.config import PretrainSettings
from cyclegan.losses import diff_augment, gradient_penalty, r1_penalty, zero_centred_penalty
from cyclegan.training.feature_queue import FeatureQueue
from cyclegan.training.pretraining import masks
from cyclegan.training.step import TrainingStep

HALF = [0.5] * 7


def draws(**changed):
    names = ("brightness", "saturation", "contrast", "down", "right", "cut_y", "cut_x")
    return [[changed.get(name, 0.5) for name in names]]


def test_colours_change_as_zhaos_do():
    """Zhao et al. 2020: brightness in [-0.5, 0.5), saturation in [0, 2), contrast in [0.5, 1.5)."""
    image = torch.randn(1, 3, 4, 4)
    x = image.numpy()

    def augmented(**changed):
        return diff_augment(image, draws(**changed), ("color",)).numpy()

    np.testing.assert_allclose(augmented(), x, atol=1e-6)
    np.testing.assert_allclose(augmented(brightness=0.9), x + 0.4, atol=1e-6)
    grey = x.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(augmented(saturation=0.0), np.broadcast_to(grey, x.shape), atol=1e-6)
    np.testing.assert_allclose(augmented(saturation=0.75), grey + 1.5 * (x - grey), atol=1e-6)
    np.testing.assert_allclose(augmented(contrast=0.0), x.mean() + 0.5 * (x - x.mean()), atol=1e-6)


def test_images_move_by_an_eighth_and_lose_a_half():
    image = torch.arange(1.0, 257).view(1, 1, 16, 16)
    assert torch.equal(diff_augment(image, [HALF], ("translation",)), image)
    moved = diff_augment(image, draws(down=0.0, right=0.99), ("translation",))
    assert torch.equal(moved[..., 2:, :14], image[..., :14, 2:])  # by 2 of 16, down and to the left
    assert not moved[..., :2, :].any() and not moved[..., 14:].any()
    cut = diff_augment(image, draws(cut_y=0.5, cut_x=0.0), ("cutout",))
    expected = image.clone()
    expected[..., 4:12, :4] = 0  # 8 x 8 around (8, 0), as much of it as there is
    assert torch.equal(cut, expected)


def test_each_image_has_its_own_change_and_gradients_pass():
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64, requires_grad=True)
    rows = np.random.default_rng(0).random((2, 7)).tolist()
    policy = ("color", "translation", "cutout")
    both = diff_augment(images, rows, policy)
    for n in range(2):
        alone = diff_augment(images[n : n + 1], rows[n : n + 1], policy)
        torch.testing.assert_close(both[n : n + 1], alone)
    assert torch.autograd.gradcheck(
        lambda x: diff_augment(x, rows, policy), images[:, :, :8, :8].detach().requires_grad_()
    )


def test_the_zero_centred_penalty_is_taken_between_real_and_fake():
    """D(x) = |x|^2 / 2 has the gradient x, and the penalty is |x|^2, wherever it is taken."""
    real, fake = torch.full((1, 1, 1, 1), 5.0), torch.full((1, 1, 1, 1), 1.0)
    for mix, x in ((1.0, 5.0), (0.0, 1.0), (0.25, 2.0)):
        share = torch.full((1, 1, 1, 1), mix)
        penalty = zero_centred_penalty(lambda y: y.square() / 2, real, fake, share)
        assert float(penalty.detach()) == pytest.approx(x**2)


def test_penalties_sum_over_scales():
    def two(x):
        return x * 3, x.mean(dim=(2, 3), keepdim=True) * 4

    image, share = torch.randn(2, 1, 1, 1), torch.rand(2, 1, 1, 1)
    assert float(r1_penalty(two, image).detach()) == pytest.approx(49)
    assert float(gradient_penalty(two, image, image, share).detach()) == pytest.approx(36)


# --- the queue


def features(*numbers):
    return torch.tensor(numbers, dtype=torch.float32).view(-1, 1, 1, 1)


def test_the_queue_keeps_the_last_by_position():
    queue = FeatureQueue(3)
    queue.note(features(11, 10), torch.tensor([11, 10]))
    queue.commit(lambda x: x)
    assert queue.features.flatten().tolist() == [10, 11]
    # Two parts, and a second process that saw the images between.
    queue.note(features(12), torch.tensor([12]))
    queue.note(features(14), torch.tensor([14]))
    queue.commit(lambda x: torch.cat([x, x + 1]))
    assert queue.features.flatten().tolist() == [13, 14, 15]
    kept = queue.state()
    again = FeatureQueue(3)
    again.load(kept, torch.device("cpu"))
    assert torch.equal(again.features, queue.features)


@pytest.fixture
def _in_fp64():
    """Gradients of gradients amplify fp32's rounding; in fp64 what is left would be a mistake."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.usefixtures("_in_fp64")
def test_parts_of_a_batch_are_one_batch_with_a_queue_and_augmentation():
    found = []
    b, later = batch(4), batch(4, seed=1)
    for parts in (1, 2):
        chosen = settings(
            batch_size=4,
            gradient_accumulation=parts,
            discriminator={"name": "batch_statistics", "filters": 4, "layers": 2, "queue": 3},
            losses={"diff_augment": ("color", "cutout"), "lambda_zero_centred": 1.0},
            optimizer={"lr": 1e-6},
        )
        step = TrainingStep(chosen, Accelerator(cpu=True))
        for whole in (b, later):
            cut = [{k: v[i : i + 4 // parts] for k, v in whole.items()} for i in range(0, 4, 4 // parts)]
            losses = step(cut, 1.0)
        found.append(({name: gradients(step.networks[name]) for name in step.networks}, losses, step.queues))
    for name in found[0][0]:
        for key, gradient in found[0][0][name].items():
            torch.testing.assert_close(gradient, found[1][0][name][key], atol=1e-5, rtol=1e-3)
    for kind, queue in found[0][2].items():
        assert len(queue.features) == 3
        torch.testing.assert_close(queue.features, found[1][2][kind].features, atol=1e-5, rtol=1e-4)
    real = {kind: queue.features for kind, queue in found[0][2].items()}
    assert not torch.equal(real["real_a"], real["fake_a"]) and not torch.equal(real["real_a"], real["real_b"])


# --- pre-training


def test_masks_hide_their_share_of_patches():
    chosen = PretrainSettings(steps=1, patch=8, masked=0.4)
    found = masks(chosen, 0, "A", range(200), 60)
    assert found.shape == (200, 1, 60, 60)
    assert set(found.unique().tolist()) == {0.0, 1.0}
    assert abs(float(found[..., ::8, ::8].mean()) - 0.6) < 0.02  # 12,800 patches
    blocks = found[..., :56, :56].unflatten(2, (7, 8)).unflatten(4, (7, 8))
    assert torch.equal(blocks.amax(dim=(3, 5)), blocks.amin(dim=(3, 5)))  # whole patches only
    assert torch.equal(masks(chosen, 0, "A", [7], 60)[0], found[7])
    assert not torch.equal(masks(chosen, 0, "B", [7], 60)[0], found[7])


def test_pretraining_completes_and_leaves_the_discriminators_alone():
    chosen = settings(
        pretrain={"steps": 30, "patch": 8}, optimizer={"lr": 2e-3}, generator={"filters": 8, "blocks": 1}
    )
    step = TrainingStep(chosen, Accelerator(cpu=True))
    D = {key: value.clone() for key, value in step.networks["D_A"].state_dict().items()}
    smooth = torch.linspace(-1, 1, 32).expand(2, 3, 32, 32).contiguous()
    losses = []
    for n in range(31):
        if n == 30:
            assert all(torch.equal(v, D[key]) for key, v in step.networks["D_A"].state_dict().items())
        images = {"real_a": smooth, "real_b": -smooth, "position": torch.arange(2 * n, 2 * n + 2)}
        losses.append(step([images], 1.0))
    assert float(losses[29]["completion_ab"]) < 0.6 * float(losses[0]["completion_ab"])
    assert "D_A" not in losses[29] and "D_A" in losses[30]
    assert not all(torch.equal(v, D[key]) for key, v in step.networks["D_A"].state_dict().items())
    state = next(iter(step.optimizer_G.state.values()))
    assert int(state["step"]) == 1  # Adam began anew with the translation
