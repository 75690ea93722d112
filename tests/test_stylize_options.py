"""`cyclegan stylize`: that no option is passed over, what its files are kept from, and what memory is counted."""

import itertools
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from photographs import photo
from PIL import Image
from test_signing import make_pair, write_pair
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cyclegan.cli import VERBS, main
from cyclegan.commands.stylize import stylize
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.images import read_image, read_metadata, to_tensor
from cyclegan.stylization import Optimization, Style, fast_network, optimize, read_styles, stylizer
from cyclegan.stylization.objective import Objective
from cyclegan.stylization.stylizer import Stylizer
from cyclegan.translation.backends import TorchBackend
from cyclegan.translation.inspection import inspect_file
from cyclegan.translation.options import Tiling
from cyclegan.translation.provenance import read_label
from cyclegan.translation.tiling import strategy
from cyclegan.translation.tiling.source import ArraySource, assembled

FAST = ("--method", "fast")
AT_ONE_SIZE = "--no-coarse-to-fine"


@pytest.fixture
def pictures(tmp_path, monkeypatch) -> Path:
    """Where the tests stand: in/a.png, in/b.jpg and in/c.png of one shape, style.png and other.png."""
    (tmp_path / "in").mkdir()
    for name, of in (("a.png", "chelsea"), ("b.jpg", "coffee"), ("c.png", "rocket")):
        Image.fromarray(photo(of, 40, 56)).save(tmp_path / "in" / name)
    Image.fromarray(photo("immunohistochemistry", 64, 64)).save(tmp_path / "style.png")
    Image.fromarray(photo("coffee", 64, 64)).save(tmp_path / "other.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # what is expected is computed on the CPU
    return tmp_path


def read(path):
    return to_tensor(read_image(Path(path)).pixels)


@pytest.fixture
def made(pictures):
    """What a command with these words makes of a content, (3, H, W) in [-1, 1]."""

    def run(*words, content="in/a.png"):
        assert stylize([content, "style.png", "made.png", "--overwrite", *map(str, words)]) == 0
        return read("made.png")

    return run


def near(found, expected, levels=1.01):
    torch.testing.assert_close(found, expected, atol=levels * 2 / 255, rtol=0)


def refused(capsys, *words):
    """The one line that a command ends with."""
    with pytest.raises(SystemExit) as ended:
        main(["stylize", *map(str, words)])
    said = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and len(said.splitlines()) == 1, said
    return said


# --- what options do


def test_a_start_from_noise_is_noise(made):
    """After one look the best picture is still the one that it began with."""
    words = ("--start", "noise", "--steps", "1", AT_ONE_SIZE)
    content = read("in/a.png")
    noise, again = made(*words), made(*words, "--seed", "7")
    for image in (noise, again):
        assert abs(float(image.mean())) < 0.02 and float(image.std()) == pytest.approx(0.25, rel=0.05)
        for other in (content, noise if image is again else again):
            assert abs(np.corrcoef(image.flatten(), other.flatten())[0, 1]) < 0.1
    near(made("--steps", "1", AT_ONE_SIZE), content)


def test_a_step_of_adam_is_torchs(made, vgg):
    content, style = read("in/a.png"), read("style.png")
    # As large as the content, which the style picture is made to be.
    side = round(math.sqrt(40 * 56))
    small = to_tensor(
        cv2.resize(read_image(Path("style.png")).pixels, (side, side), interpolation=cv2.INTER_AREA)
    )
    objective = Objective(vgg, content[None], [(small[None], Style(style))], Optimization())
    x = content[None].clone().requires_grad_(True)
    adam = torch.optim.Adam([x], lr=0.02)
    for _ in range(2):
        adam.zero_grad()
        sum(objective(x).values()).backward()
        adam.step()
    words = ("--steps", "3", AT_ONE_SIZE)
    found = made(*words, "--optimizer", "adam")
    # But for places with hardly a gradient, of whose sign Adam makes a whole step.
    assert float((found - x.detach()[0].clamp(-1, 1)).abs().quantile(0.98)) < 1.01 * 2 / 255
    assert (found - content).abs().max() > 0.03  # two steps of 0.02
    assert (found - made(*words)).abs().max() > 0.05


def test_a_style_at_a_scale_is_the_smaller_picture(made, vgg):
    side = round(math.sqrt(40 * 56 * 0.5**2))
    style = read("style.png").permute(1, 2, 0).numpy()
    small = cv2.resize(style, (side, side), interpolation=cv2.INTER_AREA)
    smaller = Style(torch.from_numpy(small).permute(2, 0, 1))
    expected = optimize(vgg, read("in/a.png"), [smaller], Optimization(steps=5))
    words = ("--steps", "5")
    found = made(*words, "--style-scale", "0.5")
    near(found, expected)
    assert (found - made(*words)).abs().mean() > 0.01


def test_tiles_are_of_the_size_and_the_kind_that_is_named(made, monkeypatch):
    pixels = photo("astronaut", 160, 200)
    Image.fromarray(pixels).save("large.png")
    network = fast_network(read_styles([Path("style.png")]))
    found = {}
    for words in (("--tile", 96), ("--tile", 48)):
        tiler = strategy.Tiler(network, 3, network.multiple_of, Tiling(words[1], "naive"))
        found[words] = made(*FAST, "--tiling", "naive", *words, content="large.png")
        near(found[words], to_tensor(assembled(tiler.bands(ArraySource(pixels)), pixels)))
    found["whole"] = made(*FAST, content="large.png")
    for one, another in itertools.combinations(found.values(), 2):
        assert (one - another).abs().max() > 0.1
    # Dense tiles leave no trace to be found.
    dense, tiles = strategy.dense_bands, []
    monkeypatch.setattr(strategy, "dense_bands", lambda *given: tiles.append(given[2]) or dense(*given))
    for words, tile in ((("--tile", 96), 96), (("--tile", 48), 48), (("--tiling", "dense"), None)):
        tiles.clear()
        near(made(*FAST, *words, content="large.png"), found["whole"], levels=8)
        assert len(tiles) == 1 and tile in (None, *tiles)


def test_pictures_go_in_batches_of_the_size_that_is_named(pictures, monkeypatch):
    seen = []
    call = TorchBackend.__call__
    monkeypatch.setattr(TorchBackend, "__call__", lambda self, x: seen.append(len(x)) or call(self, x))
    for size, batches in ((1, [1, 1, 1]), (2, [2, 1]), (3, [3])):
        seen.clear()
        words = ["in", "style.png", f"out {size}", *FAST, "--batch-size", str(size)]
        assert stylize(words) == 0
        assert seen == batches


def test_quality_is_that_of_the_file(pictures):
    for quality in (None, 30):
        words = [] if quality is None else ["--quality", str(quality)]
        assert stylize(["in/b.jpg", "style.png", "out.jpg", "--overwrite", *FAST, *words]) == 0
        Image.new("RGB", (8, 8)).save("known.jpg", quality=quality or 95)
        tables = [Image.open(name).quantization for name in ("out.jpg", "known.jpg")]
        assert tables[0] == tables[1]


@pytest.mark.parametrize("method", [FAST, ("--steps", "1")], ids=["fast", "optimize"])
def test_a_stylization_is_signed(pictures, method):
    authority = make_pair("Test Root", ca=True)
    write_pair(pictures, "chain", make_pair("Test Signer", authority), authority[1])
    write_pair(pictures, "root", authority)
    signing = ("--sign-cert", "chain.pem", "--sign-key", "chain.key")
    assert stylize(["in/a.png", "style.png", "out.png", *method, *signing]) == 0
    found = inspect_file(Path("out.png"), Path("root.pem").read_bytes())
    assert found.faults == () and found.signature.trusted and "Test Signer" in found.signature.signer
    assert stylize(["in/a.png", "style.png", "bare.png", *method]) == 0
    assert inspect_file(Path("bare.png")).signature is None


# --- what is recorded


@pytest.mark.parametrize("words", [FAST, ("--start", "fast", "--steps", "1")], ids=["fast", "start"])
@pytest.mark.parametrize("network", ["arbitrary_predict", "arbitrary_transform"])
def test_each_network_that_a_picture_comes_from_is_recorded(pictures, monkeypatch, capsys, words, network):
    of = stylizer.model_file
    where = ["in", "style.png", "out"]
    assert stylize([*where, *words]) == 0
    line = json.loads(Path("out/manifest.jsonl").read_text().splitlines()[0])
    label = read_label(read_metadata(Path("out/a.png")).xmp)
    for facts in (line, label):
        recorded = {facts["generator_sha256"], *map(str, facts["settings"].values())}
        assert {sha256_of(of("arbitrary_predict")), sha256_of(of("arbitrary_transform"))} <= recorded
    assert stylize([*where, *words]) == 0
    assert "3 were done before" in capsys.readouterr().out
    Path("other.onnx").write_bytes(of(network).read_bytes() + b"\0")
    monkeypatch.setattr(
        stylizer, "model_file", lambda name: Path("other.onnx") if name == network else of(name)
    )
    with pytest.raises(BadInput, match="other settings"):
        stylize([*where, *words])


def test_a_preview_names_the_content(pictures):
    assert stylize(["in/a.png", "style.png", "out.png", "--steps", "2", "--preview", "p.png"]) == 0
    label = read_label(read_metadata(Path("p.png")).xmp)
    assert label["input_sha256"] == sha256_of(Path("in/a.png"))
    assert label["settings"] == {"step": 2, "steps": 2}


# --- what is not overwritten


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("method", [FAST, ("--steps", "1")], ids=["fast", "optimize"])
def test_a_picture_that_is_read_is_no_output(pictures, capsys, method, link):
    Image.new("L", (56, 40), 255).save("mask.png")
    read_too = ("--more-styles", "other.png", "--masks", "mask.png", "mask.png")
    if method != FAST:
        read_too += ("--style-masks", "part.png", "part.png")
        Image.new("L", (64, 64), 255).save("part.png")
    for name in ("style.png", "other.png", "mask.png", *read_too[-1:]):
        before = Path(name).read_bytes()
        out = name
        if link:
            Path("again.png").unlink(missing_ok=True)
            Path("again.png").symlink_to(name)
            out = "again.png"
        said = refused(capsys, "in/a.png", "style.png", out, *read_too, *method, "--overwrite")
        assert f"{out}: would be overwritten" in said and name in said
        assert Path(name).read_bytes() == before
    Image.fromarray(photo("coffee", 32, 32)).save("in/style.png")
    said = refused(capsys, "in", "style.png", ".", *method, "--overwrite")
    assert "style.png: would be overwritten" in said


def test_a_preview_replaces_none_but_its_like(pictures, capsys):
    words = ("style.png", "out.png", "--steps", "1", "--preview", "p.png")
    Image.new("RGB", (4, 4)).save("p.png")
    before = Path("p.png").read_bytes()
    assert "--preview: p.png exists, and is no preview of in/a.png" in refused(capsys, "in/a.png", *words)
    assert Path("p.png").read_bytes() == before and not Path("out.png").exists()
    assert stylize(["in/a.png", *words, "--overwrite"]) == 0
    assert Path("p.png").read_bytes() != before
    # A command that was stopped leaves a preview and no result; it is called again.
    Path("out.png").unlink()
    assert stylize(["in/a.png", *words]) == 0
    Path("out.png").unlink()
    capsys.readouterr()
    assert "p.png exists" in refused(capsys, "in/b.jpg", *words)
    # A result is no preview, though it is of this content.
    assert stylize(["in/a.png", "style.png", "p.png", "--overwrite", "--steps", "1"]) == 0
    capsys.readouterr()
    assert "p.png exists" in refused(capsys, "in/a.png", *words)


# --- what memory holds


class Largest(TorchDispatchMode):
    """Watches how many bytes the largest tensor has that is made."""

    found = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, torch.Tensor):
                self.found = max(self.found, leaf.numel() * leaf.element_size())
        return made


def tiler_at(size, strength=1, **options):
    """What decides on pictures that the fast network makes ``size`` pixels large."""
    style = Style(to_tensor(photo("coffee", 64, 64)), **options)
    network = fast_network([style], strength, size=size)
    return strategy.Tiler(network, 3, network.multiple_of, Tiling())


def test_a_size_of_its_own_is_counted_once(made, monkeypatch):
    """A pixel takes what it takes, whatever the size that it is computed at."""
    # Of its layers the last but one takes most: 16 maps in, 8 out, and each once more to compute with.
    for size in (None, 16, 900, 1024, 8192):
        assert tiler_at(size).per_pixel == tiler_at(size, where=torch.eye(500)).per_pixel == 2 * (16 + 8) * 4
    monkeypatch.setattr(strategy, "memory_bytes", lambda device: 23 * 2**30)
    for size in (900, 1024, 4096):
        assert not tiler_at(size).applies(1200, 1200)
    monkeypatch.setattr(strategy, "memory_bytes", lambda device: 2**29)
    Image.fromarray(photo("astronaut", 32, 60)).save("wide.png")
    large = made(*FAST, "--size", "1024", content="wide.png")
    assert strategy.SMALL_PIXELS < 546 * 1024  # else nobody asks what memory holds
    assert (large - made(*FAST, content="wide.png")).abs().mean() > 0.01


@pytest.mark.parametrize("strength", [1, 0.5])
def test_what_memory_cannot_hold_is_refused_before_it_is_made(monkeypatch, strength):
    monkeypatch.setattr(strategy, "memory_bytes", lambda device: 2**30)
    tiler, watch = tiler_at(8192, strength), Largest()
    with watch, pytest.raises(BadInput, match="6144x8192 pixels are more than memory holds.*with --size$"):
        tiler.applies(40, 30)
    assert 0 < watch.found <= 4 * 2**20  # that of a view of 512 px


def test_a_large_style_picture_counts(monkeypatch):
    style = Style(torch.zeros(3, 400, 300))
    there = {"bytes": 0}
    monkeypatch.setattr(stylizer, "memory_bytes", lambda device: there["bytes"])
    begun = []
    monkeypatch.setattr(stylizer, "optimize", lambda network, image, *rest: begun.append(1) or image)
    image = torch.zeros(1, 3, 20, 20)
    # It has the pixels of the content, times the scale squared, and never more than its own.
    for scale, height, width in ((1, 23, 17), (5, 115, 87), (10, 231, 173)):
        needed = max(1200 * 20 * 20, 500 * height * width)
        work = Stylizer([style], Optimization(style_scale=scale), "cpu")
        there["bytes"] = needed
        work(image)
        there["bytes"] = needed - 1
        with pytest.raises(MemoryError):
            work(image)
    assert len(begun) == 3


# --- masks and weights


@pytest.mark.parametrize("method", [FAST, ("--steps", "1")], ids=["fast", "optimize"])
def test_a_mask_that_is_black_where_it_is_used_is_refused(pictures, capsys, method):
    spot = np.zeros((800, 1120), np.uint8)
    spot[400, 560] = 255
    Image.fromarray(spot).save("spot.png")
    said = refused(capsys, "in/a.png", "style.png", "out.png", *method, "--masks", "spot.png")
    assert "--masks: number 1 is black all over at 56x40 pixels" in said
    assert not Path("out.png").exists()
    cv2.circle(spot, (570, 410), 40, 255, -1)
    Image.fromarray(spot).save("spot.png")
    where = ["in/a.png", "style.png", "out.png", *method, "--masks", "spot.png"]
    assert stylize(where) == 0
    # Large enough for the picture, and too small for the size at which it is computed.
    spot[:] = 0
    cv2.circle(spot, (570, 410), 6, 255, -1)
    Image.fromarray(spot).save("spot.png")
    assert stylize([*where, "--overwrite"]) == 0
    capsys.readouterr()
    assert "at 16x16 pixels" in refused(capsys, *where, "--overwrite", "--size", "16")


def test_a_style_mask_counts_at_the_size_of_the_style_picture(pictures, capsys):
    spot = np.zeros((1000, 1000), np.uint8)
    spot[500, 500] = 255
    Image.fromarray(spot).save("spot.png")
    words = ("in/a.png", "style.png", "out.png", "--steps", "1", "--style-masks", "spot.png")
    assert "--style-masks: number 1 is black all over at 47x47 pixels" in refused(capsys, *words)


def test_a_start_by_the_fast_network_takes_masks_that_only_the_full_size_shows(cat, cells, monkeypatch):
    """The coarsest scale shows next to nothing of it."""
    monkeypatch.setattr("cyclegan.stylization.options.COARSEST", 16)
    where = torch.zeros(64, 64)
    where[30, 30] = 1
    style = Style(cells.image, where=where)
    work = Stylizer([style], Optimization(steps=1, start="fast"), "cpu")
    assert work(cat[None]).shape == (1, 3, 64, 64)
    assert work(cat[None]).isfinite().all()


WEIGHTS = {
    "1e308 1e308": "--weights: their sum is past all numbers, with 1e+308",
    "1 inf": "--weights: must be more than 0 and less than infinite, not inf",
    "nan 1": "--weights: must be more than 0 and less than infinite, not nan",
    "2 -1": "--weights: must be more than 0 and less than infinite, not -1",
}


@pytest.mark.parametrize("method", [FAST, ("--steps", "1")], ids=["fast", "optimize"])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_weights_that_are_no_shares_are_refused(pictures, capsys, weights, method):
    words = ("in/a.png", "style.png", "out.png", *method, "--more-styles", "other.png", "--weights")
    assert WEIGHTS[weights] in refused(capsys, *words, *weights.split())
    assert not Path("out.png").exists()


def test_python_is_told_what_it_left_out(vgg, cat, cells):
    for call in (
        lambda: fast_network(()),
        lambda: fast_network([Style(cells.image, 0.0)]),
        lambda: optimize(vgg, cat, (), Optimization(steps=1)),
        lambda: optimize(vgg, cat, [Style(cells.image, 0.0)], Optimization(steps=1)),
    ):
        with pytest.raises(BadInput, match="styles: none is given .*give one"):
            call()
    with pytest.raises(BadInput, match="start: 'fast' begins with what fast= makes"):
        optimize(vgg, cat, [cells], Optimization(steps=1, start="fast"))


# --- what is said of options


def help_of(capsys, *words):
    """Each option of a command's --help, and its text without the default."""
    with pytest.raises(SystemExit):
        main([*words, "--help"])
    found: list[list[str]] = []
    for line in capsys.readouterr().out.splitlines():
        inside = line[2:].rstrip("│ ") if line[:2] in ("│ ", "  ") else ""  # a frame has lines or spaces
        if inside.startswith("-") and inside.strip("-"):
            found.append(re.split(r"\s{2,}", inside, maxsplit=1))
        elif found and inside.startswith("   "):
            found[-1].append(inside.strip())
    return {option: re.sub(r"\((default|required).*", "", " ".join(text)).strip() for option, *text in found}


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_has_its_text(capsys, verb):
    texts = help_of(capsys, verb)
    assert texts
    assert [option for option, text in texts.items() if not text] == []


def test_helps_options_are_all_there(capsys):
    """Else the above would look at too few of them."""
    names = {re.split("[ ,]", option)[0] for option in help_of(capsys, "stylize")}
    wanted = {f"--{name.replace('_', '-')}" for name in Optimization.__dataclass_fields__}
    assert wanted | {"--method", "--weights", "--preview", "--sign-cert", "--json"} <= names


def test_steps_of_a_scale_are_ten_at_least():
    assert [Optimization(steps=30).steps_at(scale) for scale in range(4)] == [30, 15, 10, 10]
    assert [Optimization(steps=4).steps_at(scale) for scale in range(3)] == [4, 4, 4]
