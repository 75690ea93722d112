"""Translating: any size, any kind of file, the same kind back."""

import cv2
import numpy as np
import pytest
import torch
from generators import generator_config
from PIL import Image

from cyclegan import Translator
from cyclegan.errors import BadInput
from cyclegan.images import read_image, write_image
from cyclegan.networks import build
from cyclegan.networks.layers import initialize
from cyclegan.translation.folder import translate_files
from cyclegan.translation.plan import plan
from cyclegan.translation.provenance import Label


def translator_with(network, channels=3):
    config = generator_config(channels=channels)
    return Translator(network, config, "cpu", label=Label.of(config, "0" * 64))


class Negative(torch.nn.Module):
    """A network whose result is known: the negative, on sizes that a real one takes."""

    def forward(self, x):
        assert x.shape[-2] % 4 == 0 and x.shape[-1] % 4 == 0
        return -x


@pytest.fixture
def negative():
    return translator_with(Negative())


@pytest.mark.parametrize("size", [(37, 29), (1, 1), (64, 64), (3, 200), (200, 3)])
def test_odd_sizes_keep_every_pixel_in_place(negative, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    np.testing.assert_array_equal(negative(pixels), 255 - pixels)


def test_the_same_kind_comes_back(negative):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    image = negative(Image.fromarray(pixels))
    assert isinstance(image, Image.Image)
    np.testing.assert_array_equal(np.asarray(image), 255 - pixels)
    tensor = torch.rand(2, 3, 9, 7) * 2 - 1
    assert torch.equal(negative(tensor), -tensor)
    deep = pixels.astype(np.uint16) * 257
    np.testing.assert_array_equal(negative(deep), 65535 - deep)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_float_arrays_are_in_0_to_1(negative, kind):
    pixels = np.random.default_rng(0).random((9, 7, 3)).astype(kind)
    result = negative(pixels)
    assert result.dtype == kind
    np.testing.assert_allclose(result, 1 - pixels, atol=1e-3 if kind is np.float16 else 1e-6)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_keep_their_type(negative, kind):
    images = (torch.rand(2, 3, 9, 7) * 2 - 1).to(kind)
    result = negative(images)
    assert result.dtype == kind
    torch.testing.assert_close(result, -images)


def test_a_tensor_and_its_picture_are_resized_alike(negative):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 30, 3), np.uint8)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1
    result = (negative(tensor, size=16)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    # The picture's way has two roundings to 8 bits.
    assert np.abs(result - negative(pixels, size=16)).max() < 1.5


MODES = {  # of the input: the result's by a generator of three channels, by one of one
    "RGB": ("RGB", "L"),
    "L": ("RGB", "L"),
    "RGBA": ("RGBA", "LA"),
    "LA": ("RGBA", "LA"),
    "P": ("RGB", "L"),
    "CMYK": ("RGB", "L"),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("channels", [3, 1])
def test_pil_modes(photograph, mode, channels):
    image = Image.open(photograph("colour.png")).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(np.arange(37 * 29, dtype=np.uint8).reshape(29, 37)))
    result = translator_with(Negative(), channels)(image)
    assert result.mode == MODES[mode][channels == 1]
    assert result.size == image.size
    if "A" in mode:
        assert result.getchannel("A").tobytes() == image.getchannel("A").tobytes()
        shown = Image.new("RGBA", image.size, "white")
        shown.alpha_composite(image.convert("RGBA"))
        image = shown
    expected = 255 - np.asarray(image.convert("RGB" if channels == 3 else "L")).astype(int)
    colours = np.asarray(result)[..., :3] if channels == 3 else np.asarray(result.getchannel("L"))
    assert np.abs(colours - expected).max() <= 1


def test_a_16_bit_pil_image_stays_so():
    deep = np.arange(20 * 30, dtype=np.uint16).reshape(20, 30) * 100
    result = translator_with(Negative(), 1)(Image.fromarray(deep))
    assert result.mode == "I;16"
    np.testing.assert_array_equal(np.asarray(result), 65535 - deep)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (Image.fromarray(np.zeros((9, 9), np.uint16)), "PIL has no 16-bit colour"),
        (Image.new("F", (9, 9)), "32-bit images are not read"),
        (np.zeros((9, 9), np.uint8), r"arrays \(H, W, 3\), not \(9, 9\)"),
        (np.zeros((9, 9, 1), np.uint8), r"arrays \(H, W, 3\), not \(9, 9, 1\)"),
        (np.full((9, 9, 3), 200.0), r"float arrays must be in \[0, 1\], not 200 to 200"),
        (np.full((9, 9, 3), np.nan), r"float arrays must be in \[0, 1\]"),
        (np.zeros((9, 9, 3), np.int64), "not int64"),
        (torch.zeros(3, 9, 9), r"float tensors \(N, 3, H, W\) in \[-1, 1\], not torch.float32 \(3, 9, 9\)"),
        (torch.zeros(1, 3, 9, 9, dtype=torch.uint8), "not torch.uint8"),
    ],
)
def test_images_of_the_wrong_kind(negative, image, message):
    with pytest.raises(BadInput, match=message):
        negative(image)


def test_a_set_size_is_resized_there_and_back():
    seen = []

    class Watch(torch.nn.Module):
        def forward(self, x):
            seen.append(tuple(x.shape))
            return x

    result = translator_with(Watch())(np.zeros((50, 30, 3), np.uint8), size=64)
    assert seen == [(1, 3, 64, 64)]
    assert result.shape == (50, 30, 3)


def test_padding_is_a_mirror(negative):
    from cyclegan.networks.inference import pad

    image = torch.arange(18.0).view(1, 1, 1, 18).expand(1, 1, 17, 18)
    padded = pad(image, 4)
    assert padded.shape == (1, 1, 20, 20)
    assert padded[0, 0, 0, 16:].tolist() == [16, 17, 16, 15]


FILES = {
    "plain.png": ("RGB", {}),
    "photograph.jpg": ("RGB", {"quality": 95}),
    "press.jpg": ("CMYK", {"quality": 95}),
    "grey.png": ("L", {}),
    "palette.png": ("P", {}),
    "clear.png": ("RGBA", {}),
    "web.webp": ("RGB", {"lossless": True}),
    "page.tif": ("RGB", {}),
    "screen.bmp": ("RGB", {}),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(negative, photograph, tmp_path, name):
    mode, options = FILES[name]
    source, target = photograph(name, mode, **options), tmp_path / "out" / name
    negative.file(source, target)
    result, original = read_image(target), read_image(source)
    lossy = 6 if target.suffix in (".jpg", ".webp") else 0
    difference = np.abs(result.pixels.astype(int) - (255 - original.pixels.astype(int)))
    assert difference.mean() <= lossy
    assert (result.alpha is None) == (mode != "RGBA")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_in_sixteen_bits_out(tmp_path, suffix, channels):
    deep = (np.arange(40 * 30 * channels, dtype=np.uint16) * 11).reshape(40, 30, channels)
    write_image(tmp_path / f"deep{suffix}", deep)
    translator_with(Negative(), channels).file(tmp_path / f"deep{suffix}", tmp_path / f"out{suffix}")
    written = cv2.imread(str(tmp_path / f"out{suffix}"), cv2.IMREAD_UNCHANGED)
    assert written.dtype == np.uint16
    np.testing.assert_array_equal(read_image(tmp_path / f"out{suffix}", channels).pixels, 65535 - deep)


def test_sixteen_bits_become_eight_only_where_the_format_has_no_more(negative, tmp_path):
    write_image(tmp_path / "deep.png", np.full((20, 20, 3), 40000, np.uint16))
    negative.file(tmp_path / "deep.png", tmp_path / "out.webp")
    assert abs(int(read_image(tmp_path / "out.webp").pixels[0, 0, 0]) - (255 - 40000 / 257)) <= 2


def test_a_real_generator_on_a_grey_picture(photograph):
    grey = initialize(build("generator", "resnet", {"filters": 4, "blocks": 1, "channels": 1}))
    result = translator_with(grey, 1)(Image.open(photograph("colour.png")))
    assert (result.mode, result.size) == ("L", (37, 29))


# --- folders


def test_the_tree_is_mirrored_and_one_bad_file_stops_nothing(negative, photograph, tmp_path):
    for name in ("in/a.png", "in/deep/er/b.jpg", "in/deep/c.PNG"):
        photograph(name)
    (tmp_path / "in" / "deep" / "broken.jpg").write_text("not an image")
    (tmp_path / "in" / "notes.txt").write_text("left alone")
    results = list(translate_files(negative, plan(tmp_path / "in", tmp_path / "out")))
    written = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert written == {"a.png", "deep/er/b.jpg", "deep/c.PNG"}
    (failed,) = [r for r in results if r.error]
    assert failed.source.name == "broken.jpg"
    assert "is not a JPEG" in failed.error


def test_one_file_into_a_file_or_a_folder(photograph, tmp_path):
    source = photograph("a.png")
    assert list(plan(source, tmp_path / "out")) == [(source, tmp_path / "out" / "a.png")]
    assert list(plan(source, tmp_path / "b.jpg")) == [(source, tmp_path / "b.jpg")]


@pytest.mark.parametrize(
    ("source", "target", "message"),
    [
        ("nowhere", "out", "nowhere: no such folder"),
        ("empty", "out", "has no JPEG, PNG, WebP, TIFF or BMP images"),
        ("in", "in/out", "lies inside"),
        ("in", "in", "lies inside"),
        ("in/a.png", "in/a.png", "would be overwritten by the translation of"),
        ("in/a.png", "a.gif", "a.gif: cannot be written as a .gif"),
    ],
)
def test_what_cannot_be_translated(photograph, tmp_path, source, target, message):
    photograph("in/a.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=message):
        plan(tmp_path / source, tmp_path / target)


def test_an_output_that_cannot_be_written_stops_at_once(negative, photograph, tmp_path):
    photograph("in/a.png")
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(BadInput, match="cannot be written"):
        list(translate_files(negative, plan(tmp_path / "in", tmp_path / "out")))
