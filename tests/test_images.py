"""Every kind of file in, and out again; checked against Pillow and OpenCV directly."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from cyclegan import images
from cyclegan.images import (
    BadImage,
    from_tensor,
    image_size,
    read_image,
    read_metadata,
    resize,
    to_tensor,
    write_image,
)


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".jpg", ".webp"])
def test_plain_colour(photograph, suffix):
    path = photograph(f"plain{suffix}")
    picture = read_image(path)
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.pixels, np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(photograph, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = photograph("turned.jpg", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(read_image(path).pixels, upright)
    assert image_size(path) == upright.shape[:2]


def test_grey_and_colour_become_what_is_asked_for(photograph):
    grey = photograph("grey.png", "L")
    assert read_image(grey, channels=1).pixels.shape == (29, 37, 1)
    three = read_image(grey, channels=3).pixels
    assert (three[:, :, 0] == three[:, :, 2]).all()
    colour = photograph("colour.png")
    expected = np.asarray(Image.open(colour).convert("L"), int)
    assert np.abs(read_image(colour, channels=1).pixels[:, :, 0] - expected).max() <= 1


def test_palette_and_bilevel(photograph):
    path = photograph("palette.png", "P")
    np.testing.assert_array_equal(read_image(path).pixels, np.asarray(Image.open(path).convert("RGB")))
    assert set(np.unique(read_image(photograph("bilevel.png", "1")).pixels)) == {0, 255}


def test_cmyk(photograph):
    path = photograph("press.jpg", "CMYK", quality=95)
    original = np.asarray(Image.open(photograph("screen.png")), int)
    assert np.abs(read_image(path).pixels.astype(int) - original).mean() < 4


@pytest.mark.parametrize("background", [(255, 255, 255), (10, 200, 30)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_composited_on_the_set_colour_and_kept(tmp_path, mode, background):
    pixels = np.full((4, 4, len(mode)), 100, np.uint8)
    pixels[:, :2, -1] = 0
    pixels[:, 2:, -1] = 255
    Image.fromarray(pixels, mode).save(tmp_path / "alpha.png")
    picture = read_image(tmp_path / "alpha.png", background=background)
    assert tuple(picture.pixels[0, 0]) == background
    assert tuple(picture.pixels[0, 3]) == (100, 100, 100)
    np.testing.assert_array_equal(picture.alpha, pixels[:, :, -1])


def test_transparent_palette(tmp_path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.save(tmp_path / "p.png", transparency=1)
    picture = read_image(tmp_path / "p.png")
    assert tuple(picture.pixels[0, 0]) == (255, 255, 255)
    assert picture.alpha.max() == 0


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_stay_sixteen(tmp_path, suffix, channels):
    """Pillow reads 16-bit colour as 8 bits without a word; nothing may be lost on the way."""
    deep = np.arange(30 * 20 * channels, dtype=np.uint16).reshape(30, 20, channels) * 17
    path = tmp_path / f"deep{suffix}"
    cv2.imwrite(str(path), deep[:, :, ::-1])
    picture = read_image(path, channels)
    assert picture.pixels.dtype == np.uint16
    np.testing.assert_array_equal(picture.pixels, deep)
    copy = tmp_path / f"copy{suffix}"
    write_image(copy, from_tensor(to_tensor(picture.pixels), np.uint16))
    np.testing.assert_array_equal(
        cv2.imread(str(copy), cv2.IMREAD_UNCHANGED).reshape(deep.shape), deep[:, :, ::-1]
    )


def test_sixteen_bit_alpha(tmp_path):
    deep = np.full((5, 6, 4), 40000, np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), deep)
    picture = read_image(tmp_path / "deep.png")
    assert picture.alpha.dtype == np.uint16
    write_image(tmp_path / "copy.png", picture.pixels, picture.alpha)
    np.testing.assert_array_equal(
        cv2.imread(str(tmp_path / "copy.png"), cv2.IMREAD_UNCHANGED)[:, :, 3], deep[:, :, 3]
    )


def test_tensors_carry_every_8_bit_value():
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    tensor = to_tensor(pixels)
    assert (float(tensor.min()), float(tensor.max())) == (-1.0, 1.0)
    np.testing.assert_array_equal(from_tensor(tensor), pixels)
    assert from_tensor(torch.full((3, 1, 1), 7.0)).max() == 255


def test_resize_averages_when_it_shrinks():
    pixels = np.zeros((8, 8, 1), np.uint8)
    pixels[::2] = 200
    assert set(np.unique(resize(pixels, 4, 4))) == {100}
    assert resize(pixels, 3, 5).shape == (3, 5, 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_resize_is_antialiased_where_one_side_shrinks_and_the_other_grows(kind):
    """Against Pillow: its box over the side that shrinks, then its bicubic along the other."""
    peak = 1 if kind is np.float32 else np.iinfo(kind).max
    noise = np.random.default_rng(0).random((6, 48, 1))
    pixels = (noise * peak).astype(kind)
    found = resize(pixels, 18, 8).astype(np.float64) / peak
    box = Image.fromarray(noise[:, :, 0].astype(np.float32)).resize((8, 6), Image.Resampling.BOX)
    # The bicubics differ in one constant (-0.5, OpenCV's -0.75). Without averages the gap is above 0.4.
    theirs = np.asarray(box.resize((8, 18), Image.Resampling.BICUBIC))
    assert np.abs(found[:, :, 0] - theirs).max() < 0.03
    turned = resize(np.ascontiguousarray(pixels.transpose(1, 0, 2)), 8, 18)
    np.testing.assert_allclose(turned[:, :, 0].T / peak, found[:, :, 0], atol=1 / 255)


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    write_image(path, np.zeros((4, 4, 3), np.uint8))
    before = path.read_bytes()

    def full(self, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(images.Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_image(path, np.ones((4, 4, 3), np.uint8))
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["picture.png"]


def truncated(path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:2000])


BAD = {
    "empty.png": (lambda p: p.write_bytes(b""), "is empty (0 bytes)"),
    "text.jpg": (lambda p: p.write_text("hello"), "is not a JPEG, PNG, WebP, TIFF or BMP image"),
    "truncated.png": (truncated, "cannot be decoded"),
    "truncated.jpg": (truncated, "cannot be decoded"),
    "missing.png": (lambda p: None, "cannot be read (No such file or directory)"),
    "float.tif": (lambda p: Image.new("F", (4, 4)).save(p), "32-bit images are not read"),
    "large.png": (lambda p: Image.new("1", (2000, 2000)).save(p), "past the limit of 1,000,000"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_named_in_one_line(tmp_path, name):
    make, message = BAD[name]
    path = tmp_path / name
    make(path)
    with pytest.raises(BadImage) as caught:
        read_image(path, max_pixels=1_000_000)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", ["tEXt", "iTXt"])
@pytest.mark.parametrize("name", ["exif", "icc_profile", "xmp", "transparency", "photoshop"])
def test_a_text_of_png_is_not_taken_for_what_its_name_says(photograph, name, kind, behind):
    """Pillow keeps texts, those behind the pixels too, among what it says of the file itself."""
    plain, info = photograph("plain.png"), PngInfo()
    (info.add_text if kind == "tEXt" else info.add_itxt)(name, "of a stranger")
    path = photograph("told.png", pnginfo=info)
    if behind:
        data = path.read_bytes()
        at = data.index(kind.encode()) - 4
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        path.write_bytes(data[:at] + data[end:-12] + data[at:end] + data[-12:])
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, read_image(plain).pixels)
    assert picture.alpha is None and picture.metadata == read_metadata(path) == read_image(plain).metadata
    assert image_size(path) == (29, 37)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("as_text", [False, True])
def test_the_size_of_a_png_is_that_of_its_upright_pixels(photograph, orientation, as_text):
    exif, info = Image.Exif(), PngInfo()
    exif[0x0112] = orientation
    block = exif.tobytes()
    if as_text:
        info.add_text("Raw profile type exif", f"\nexif\n{len(block):8}\n{block.hex()}\n")
    path = photograph("turned.png", **({"pnginfo": info} if as_text else {"exif": exif}))
    assert image_size(path) == ((37, 29) if orientation == 6 else (29, 37))
    assert read_image(path).pixels.shape[:2] == image_size(path)


def test_xmp_of_a_tiff_that_is_text_is_none(photograph):
    tags = ImageFileDirectory_v2()
    tags.tagtype[700] = 2
    tags[700] = "of a stranger"
    picture = read_image(photograph("told.tif", tiffinfo=tags))
    assert picture.pixels.shape == (29, 37, 3) and picture.metadata.xmp is None
