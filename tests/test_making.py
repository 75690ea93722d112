"""Domains made from pictures in packages: what is drawn is what is said, the same every time, by licence."""

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.stats import spearmanr

from cyclegan import chance
from cyclegan.datasets.cards import MadeSource, Original, attribution_text, list_cards, load_card
from cyclegan.datasets.making import make
from cyclegan.datasets.making.contrasts import computed_t2, t2_signal
from cyclegan.datasets.making.lowpoly import lowpoly
from cyclegan.datasets.making.originals import original_file
from cyclegan.datasets.making.prints import INKS, printed
from cyclegan.datasets.making.strokes import strokes
from cyclegan.errors import BadInput
from cyclegan.images import read_image

MADE = [name for name in sorted(list_cards()) if load_card(name).source.kind == "made"]


@pytest.fixture(scope="module")
def cat():
    """A photograph full of fur, in which nothing is flat."""
    original = next(o for o in load_card("photo2lowpoly").source.originals if "chelsea" in o.file)
    return np.ascontiguousarray(read_image(original_file(original)).pixels[60:164, 100:204])


def flat(picture):
    """The share of pixels that have exactly the colour of the next one, to the right and below."""
    picture = picture.astype(int)
    right = (picture[:-1, 1:] == picture[:-1, :-1]).all(axis=2)
    below = (picture[1:, :-1] == picture[:-1, :-1]).all(axis=2)
    return (right & below).mean()


def error(a, b):
    return np.abs(a.astype(float) - b).mean()


@pytest.mark.parametrize("render", [lowpoly, strokes])
def test_renderings_are_flat_pieces_and_no_blur(cat, render):
    drawn = render(cat, np.random.default_rng(1))
    assert drawn.shape == cat.shape and drawn.dtype == np.uint8
    blurs = [cv2.GaussianBlur(cat, (0, 0), sigma) for sigma in (1, 2, 4, 8)]
    assert flat(drawn) > 0.3 > 5 * max(map(flat, [cat, *blurs]))
    assert error(drawn, cat) < 20  # it is still the cat
    assert (drawn == render(cat, np.random.default_rng(1))).all()
    assert (drawn != render(cat, np.random.default_rng(2))).any()


def test_triangles_have_the_mean_colour_of_what_they_cover(cat):
    two = np.full((60, 60, 3), (200, 40, 40), np.uint8)
    two[:, 30:] = (20, 60, 220)
    drawn = lowpoly(two, np.random.default_rng(0))
    assert error(drawn[:, :20], two[:, :20]) < 4 and error(drawn[:, -20:], two[:, -20:]) < 4
    between = np.abs(drawn[:, 25:35].astype(int) - two[:, 25:35]).max(axis=2) > 100
    assert between.mean() < 0.2  # a blur of this width would be wrong there
    assert np.abs(lowpoly(cat, np.random.default_rng(0)).mean((0, 1)) - cat.mean((0, 1))).max() < 1.5


def test_strokes_follow_the_edges(cat):
    """Of a picture of upright stripes the strokes are upright: neighbours below are more alike."""
    stripes = np.repeat(np.where(np.arange(96) // 12 % 2, 220, 40)[None, :, None], 96, axis=0).repeat(3, 2)
    drawn = strokes(stripes.astype(np.uint8), np.random.default_rng(0)).astype(int)
    assert np.abs(np.diff(drawn, axis=0)).mean() < 0.5 * np.abs(np.diff(drawn, axis=1)).mean()


def test_a_print_goes_from_its_paper_to_its_ink(cat):
    """White is the paper, black the ink; what lies between gets darker with the photograph."""
    greys = np.linspace(0, 255, 256).astype(np.uint8)[None, :, None].repeat(3, 2)
    for look, (paper, ink) in INKS.items():
        drawn = printed(greys, np.random.default_rng(0), look)[0].astype(int)
        assert np.abs(drawn[-1] - paper).max() <= 1 and np.abs(drawn[0] - ink).max() <= 11, look
        assert (np.diff(drawn, axis=0) >= 0).all()
        # Twice the layers let through the square of the light (Beer and Lambert), in linear light.
        half, whole = (
            np.array([to_linear(v / 255) for v in drawn[at]]) / [to_linear(v / 255) for v in paper]
            for at in (128, 1)
        )
        strong = slice(0, 2) if look == "red chalk" else slice(1, 3)  # red chalk has little blue
        assert whole[strong] == pytest.approx(half[strong] ** 2, rel=0.2)
        made = printed(cat, np.random.default_rng(0), look)
        grey, before = (cv2.cvtColor(each, cv2.COLOR_RGB2GRAY).ravel() for each in (made, cat))
        assert spearmanr(grey, before).statistic > 0.99


def test_every_print_is_of_one_ink_and_there_are_all(tmp_path):
    card = load_card("photo2prints")
    originals = [o for o in card.source.originals if "china" in o.file or "coffee" in o.file]
    make(card.source.model_copy(update={"originals": tuple(originals)}), tmp_path)
    photograph = read_image(original_file(originals[0])).pixels
    by_look = {look: printed(photograph, np.random.default_rng(0), look) for look in INKS}
    found = Counter()
    for path in (tmp_path / "trainB").iterdir():
        top, left = map(int, path.stem.split("-")[1:])
        tile = read_image(path).pixels
        (look,) = (
            look
            for look, whole in by_look.items()
            if (whole[top : top + 128, left : left + 128] == tile).all()
        )
        found[look] += 1
    assert set(found) == set(INKS) and max(found.values()) - min(found.values()) <= 1


def to_linear(v):
    return v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4


def test_the_spin_echo_in_plain_numbers():
    # PD (1 - exp(-3300 / T1)) exp(-120 / T2): CSF 0.5021, grey 0.1987, white 0.1384
    assert t2_signal("csf") == 1
    assert t2_signal("grey") == pytest.approx(0.1987 / 0.5021, abs=2e-3)
    assert t2_signal("white") == pytest.approx(0.1384 / 0.5021, abs=2e-3)
    maps = (
        np.array([0.0, 1.0, 1.0, 1.0, 0.0]),
        np.array([0.0, 1.0, 0.0, 0.0, 1.0]),
        np.array([0.0, 0.0, 1.0, 0.0, 0.0]),
    )
    assert computed_t2(*maps) == pytest.approx([0, t2_signal("grey"), t2_signal("white"), 1, 0])


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t1tot2")
    make(load_card("t1tot2").source, folder)
    return folder


def test_two_contrasts_of_one_head(heads):
    counts = {split.name: len(list(split.iterdir())) for split in heads.iterdir()}
    assert counts == {"trainA": 120, "trainB": 105, "testA": 15, "testB": 15}
    heights = {s: {int(p.name[1:4]) for p in (heads / s).iterdir()} for s in counts}
    assert heights["testA"] == heights["testB"]
    for one, other in (("trainA", "trainB"), ("trainA", "testA"), ("trainB", "testA")):
        assert min(abs(a - b) for a in heights[one] for b in heights[other]) > 2
    for path in sorted((heads / "testA").iterdir()):
        t1, t2 = (np.asarray(Image.open(heads / side / path.name)) for side in ("testA", "testB"))
        assert t1.dtype == t2.dtype == np.uint16 and len(np.unique(t1)) > 1000
        inside = cv2.erode((t1 > 12_000).astype(np.uint8), np.ones((9, 9))) > 0
        # What is bright in one is dark in the other; a copy or a blur would go the same way.
        assert np.corrcoef(t1[inside], t2[inside])[0, 1] < -0.8


def test_sides_of_a_made_domain_share_no_pixel(tmp_path, monkeypatch):
    card = load_card("photo2lowpoly")
    originals = [o for o in card.source.originals if "china" in o.file or "coffee" in o.file]
    monkeypatch.setattr("cyclegan.datasets.making.lowpoly", lambda picture, rng: picture)
    make(card.source.model_copy(update={"originals": tuple(originals)}), tmp_path)
    strips = {s: {p.stem.split("-")[2] for p in (tmp_path / s).iterdir()} for s in ("trainA", "trainB")}
    assert strips["trainA"] and strips["trainB"] and not strips["trainA"] & strips["trainB"]
    names = [sorted(p.name for p in (tmp_path / s).iterdir()) for s in ("testA", "testB")]
    assert names[0] == names[1] and all(name.startswith("coffee-") for name in names[0])
    photograph = read_image(original_file(originals[-1])).pixels
    tile = read_image(tmp_path / "testA" / "coffee-0128-0256.png").pixels
    assert (tile == photograph[128:256, 256:384]).all()


@pytest.mark.parametrize("name", MADE)
def test_attribution_names_every_original(name):
    card = load_card(name)
    text = attribution_text(name, card)
    for original in card.source.originals:
        assert f"{original.title}: {original.licence}; {original.attribution}; {original.url}" in text


def an_original(**changes):
    values = {
        "title": "a cat", "package": "scikit-image", "file": "skimage/data/chelsea.png", "sha256": "0" * 64,
        "licence": "CC0-1.0", "attribution": "me", "url": "http://x", **changes,
    }  # fmt: skip
    return Original(**values)


MISSING = {
    "a cat is in the package no-such-package-here, which is not installed: pip install 'cyclegan": {
        "package": "no-such-package-here"
    },
    "nothing.png: is not there; this scikit-image lacks it": {"file": "skimage/data/nothing.png"},
    "chelsea.png: the file's SHA-256 is 596aa1e7": {},
}


@pytest.mark.parametrize("message", MISSING)
def test_originals_that_are_missing_or_others(message, tmp_path):
    source = MadeSource(kind="made", maker="lowpoly", originals=(an_original(**MISSING[message]),))
    with pytest.raises(BadInput) as error:
        make(source, tmp_path)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "render"),
    [("photo2lowpoly", lowpoly), pytest.param("photo2strokes", strokes, marks=pytest.mark.slow)],
)
def test_side_b_is_rendered_and_side_a_is_not(name, render, tmp_path):
    """Of the recipe as it is made, training and held-out tiles."""
    source = load_card(name).source
    chosen = [next(o for o in source.originals if o.held_out is held_out) for held_out in (False, True)]
    make(source.model_copy(update={"originals": tuple(chosen)}), tmp_path)
    whole = {}
    for number, original in enumerate(chosen):
        photograph = read_image(original_file(original)).pixels
        drawn = render(photograph, chance.rng(source.seed, f"render {source.maker}", number))
        whole[Path(original.file).stem] = {"A": photograph, "B": drawn}
    for split in ("trainA", "trainB", "testA", "testB"):
        paths = list((tmp_path / split).iterdir())
        assert paths
        for path in paths:
            stem, top, left = path.stem.rsplit("-", 2)
            tile = whole[stem][split[-1]][int(top) : int(top) + 128, int(left) : int(left) + 128]
            assert (read_image(path).pixels == tile).all()


def test_what_is_computed_is_as_sharp_as_what_it_is_computed_from(tmp_path):
    """Share of the contrast inside the head that is finer than a pixel's blur; any blur leaves less."""
    import cv2
    import numpy as np

    make(load_card("t1tot2").source, tmp_path)
    shares = {}
    for side in ("testA", "testB"):
        found = []
        for path in sorted((tmp_path / side).iterdir()):
            t1, pixels = (
                read_image(tmp_path / each / path.name, channels=1).pixels[:, :, 0].astype(np.float64)
                for each in ("testA", side)
            )
            inside = cv2.erode((t1 > 12_000).astype(np.uint8), np.ones((5, 5))) > 0
            found.append((pixels - cv2.GaussianBlur(pixels, (0, 0), 1))[inside].std() / pixels[inside].std())
        shares[side] = np.mean(found)
    print(shares)
    assert shares["testA"] > 0.1 and shares["testB"] > 0.8 * shares["testA"]
