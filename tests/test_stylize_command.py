"""`cyclegan stylize`: what each of its words does, and what it says where it cannot."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from photographs import photo
from PIL import Image

from cyclegan.commands.inspect import inspect
from cyclegan.commands.stylize import stylize
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.images import from_tensor, read_image, resize, to_tensor
from cyclegan.networks.inference import inference_device, pad, translate
from cyclegan.networks.vgg19 import pretrained_vgg19, vgg19_file
from cyclegan.stylization import Optimization, Style, fast_network, optimize, stylizer
from cyclegan.stylization.colour import with_colours_of
from cyclegan.stylization.fast import model_file
from cyclegan.stylization.objective import Objective
from cyclegan.stylization.styles import at_scale
from cyclegan.translation import pipeline
from cyclegan.translation.options import Tiling
from cyclegan.translation.tiling import strategy


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


def test_one_optimization_that_memory_cannot_hold_is_no_other_ones_trouble(pictures, monkeypatch, capsys):
    """On GPUs, whose default is a batch, they go one by one all the same; so what is done is written."""
    for module in ("folder", "pipeline"):
        monkeypatch.setattr(f"cyclegan.translation.{module}.default_batch_size", lambda device: 16)
    begun = []

    def the_second_is_too_large(network, content, *others):
        begun.append(content)
        if len(begun) == 2:
            raise MemoryError
        return content

    monkeypatch.setattr("cyclegan.stylization.stylizer.optimize", the_second_is_too_large)
    assert stylize([str(pictures / name) for name in ("in", "style.png", "out")]) == 1
    assert "b.jpg: does not fit into memory" in capsys.readouterr().err
    assert sorted(path.name for path in (pictures / "out").rglob("*.*g")) == ["a.png", "c.png"]


def test_a_start_by_the_fast_network_is_named_and_recorded(pictures, monkeypatch, capsys):
    where = [str(pictures / name) for name in ("in", "style.png", "out")]
    words = [*where, "--steps", "1", "--start", "fast"]
    assert stylize(words) == 0
    capsys.readouterr()
    assert inspect([str(pictures / "out" / "a.png")]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("Gatys", "Ghiasi", "CC BY 4.0", "Apache-2.0"))
    line = json.loads((pictures / "out" / "manifest.jsonl").read_text().splitlines()[0])
    assert line["licences"].keys() == {"VGG-19", "Magenta"}
    assert line["generator_sha256"] == sha256_of(vgg19_file())
    assert line["settings"]["fast_sha256"] == sha256_of(model_file("arbitrary_transform"))
    assert stylize(words) == 0
    assert "3 were done before" in capsys.readouterr().out
    other = pictures / "arbitrary_transform.onnx"
    model = onnx.load(model_file("arbitrary_transform"))
    model.doc_string = "another release"
    onnx.save(model, other)
    others = {"arbitrary_transform": other, "arbitrary_predict": model_file("arbitrary_predict")}
    monkeypatch.setattr("cyclegan.stylization.stylizer.model_file", others.__getitem__)
    with pytest.raises(BadInput, match="other settings"):
        stylize(words)


def test_without_a_label_the_preview_has_none_either(pictures):
    out, preview = pictures / "made.png", pictures / "preview.png"
    words = [*(str(pictures / name) for name in ("in/a.png", "style.png")), str(out), *SHORT, "--size", "32"]
    assert stylize([*words, "--preview", str(preview), "--no-label"]) == 0
    assert read_image(out).metadata.xmp is None and read_image(preview).metadata.xmp is None


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


@pytest.mark.parametrize(("height", "width", "edge"), [(45, 51, 40), (12, 40, 7)])
def test_fast_masks_are_of_the_picture_and_not_of_what_it_is_padded_to(pictures, made, height, width, edge):
    Image.fromarray(photo("chelsea", height, width)).save(pictures / "in/a.png")
    mask = np.zeros((height, width), np.uint8)
    mask[:edge] = 255
    Image.fromarray(mask).save(pictures / "mask.png")
    masked, content = made("--masks", pictures / "mask.png"), read(pictures / "in/a.png")
    assert torch.equal(masked[:, edge:], content[:, edge:])
    near(masked[:, :edge], made()[:, :edge])
    assert (masked[:, edge - 1] - content[:, edge - 1]).abs().mean() > 0.05


@torch.no_grad()
def test_the_contents_own_style_is_read_off_the_picture_as_it_is(pictures, made):
    Image.fromarray(photo("chelsea", 45, 51)).save(pictures / "in/a.png")
    content = read(pictures / "in/a.png")
    network = fast_network([Style(read(pictures / "style.png"))])
    own = network.predictor(content)
    found = {}
    for picture, vector in (("true", own), ("padded", network.predictor(pad(content[None], 4)[0]))):
        network.transformer.use_style(vector)
        found[picture] = translate(network.transformer, content[None], 4)[0]
    assert (found["true"] - found["padded"]).abs().max() > 4 * 2 / 255
    near(made("--strength", 0), found["true"])


def test_shared_options_say_the_same_of_an_optimization(pictures, made):
    """Each alone, against a call that it stands for, and no two of them alike."""
    content, style, other = (read(pictures / name) for name in ("in/a.png", "style.png", "in/b.jpg"))
    left, top = torch.zeros(40, 56), torch.zeros(64, 64)
    left[:, :28] = 1
    top[:32] = 1
    for name, mask in (("left", left), ("top", top)):
        Image.fromarray((mask.numpy() * 255).astype(np.uint8)).save(pictures / f"{name}.png")
    where, part = ("--masks", pictures / "left.png"), ("--style-masks", pictures / "top.png")
    more = ("--more-styles", pictures / "in/b.jpg")
    all_styles = [Style(style, 0.25, left, top), Style(other, 0.75, left, top)]
    calls = {
        (): ([Style(style)], {}),
        more: ([Style(style, 0.5), Style(other, 0.5)], {}),
        (*more, "--weights", 1, 3): ([Style(style, 0.25), Style(other, 0.75)], {}),
        where: ([Style(style, where=left)], {}),
        part: ([Style(style, part=top)], {}),
        (*where, *part): ([Style(style, 1.0, left, top)], {}),
        ("--keep-colours",): ([Style(style)], {"keep_colours": True}),
        (*more, "--weights", 1, 3, *where, where[1], *part, part[1], "--start", "fast"): (
            all_styles,
            {"start": "fast"},
        ),
    }
    whole, device = [replace(style, part=None) for style in all_styles], inference_device()
    with torch.no_grad():
        begun = fast_network(whole)(content[None]).to(device)
    network, expected = pretrained_vgg19().to(device), []
    for words, (styles, options) in calls.items():
        chosen = Optimization(steps=4, **options)
        result = optimize(network, content.to(device), styles, chosen, fast=lambda image: begun)
        expected.append(result.cpu())
        near(made(*words, method=("--steps", "4")), expected[-1])
    for one, another in combinations(expected, 2):
        assert (one - another).abs().max() > 0.1


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
    "in/a.png STYLE out --batch-size 2": "--batch-size: is for --method fast",
    "in/nowhere.png nowhere.png out --method fast --tiling exact": "use --tiling dense",
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


@pytest.mark.parametrize("method", ["fast", "optimize"])
def test_a_slide_goes_whole_where_it_is_made_small(pictures, monkeypatch, method):
    """As a file of another kind does, whose size no limit of slides is for."""
    pixels = photo("chelsea", 160, 120)
    for name in ("in/deep/slide.tif", "in/deep/same.png"):
        Image.fromarray(pixels).save(pictures / name)
    monkeypatch.setattr(pipeline, "SLIDE_PIXELS", 100)
    more = FAST if method == "fast" else SHORT
    words = [str(pictures / name) for name in ("in/deep", "style.png", "out")]
    assert stylize([*words, "--method", method, "--size", "48", *more]) == 0
    slide, same = (read_image(pictures / "out" / name).pixels for name in ("slide.tif", "same.png"))
    np.testing.assert_array_equal(slide, same)
    assert slide.shape == pixels.shape and (slide != pixels).any()


def test_a_size_past_memory_is_one_pictures_trouble_and_is_said(pictures, monkeypatch, capsys):
    words = [str(pictures / name) for name in ("in", "style.png", "out")]
    with pytest.raises(BadInput, match="size: must be 16 to 65536, not 1000000"):
        stylize([*words, *FAST, "--size", "1000000"])
    monkeypatch.setattr(stylizer, "memory_bytes", lambda device: 1200 * 16 * 23)
    Image.fromarray(photo("chelsea", 16, 16)).save(pictures / "in" / "small.png")
    assert stylize([*words, *SHORT]) == 1
    shown = capsys.readouterr()
    assert "a.png: does not fit into memory; give it smaller, with --size\n" in shown.err + shown.out
    assert (pictures / "out" / "small.png").is_file()
    monkeypatch.setattr(strategy, "memory_bytes", lambda device: 2**30)
    network = fast_network([Style(to_tensor(photo("coffee", 64, 64)))], size=8192)
    tiler = strategy.Tiler(network, 3, network.multiple_of, Tiling())
    with pytest.raises(BadInput, match="6144x8192 pixels are more than memory holds.*with --size$"):
        tiler.applies(40, 30)


def test_weights_that_leave_no_number_or_nothing_to_do_are_refused(pictures):
    words = [str(pictures / name) for name in ("in/a.png", "style.png", "made.png")]
    with pytest.raises(BadInput, match="style_weight.*not one step had a loss that is a number"):
        stylize([*words, *SHORT, "--style-weight", "1e38"])
    with pytest.raises(BadInput, match="one of them must be more than 0"):
        stylize([*words, *SHORT, "--content-weight", "0", "--style-layers", "relu1_1", "0"])
    assert not (pictures / "made.png").exists()
