"""Colour profile, EXIF and XMP, through every format; written and read by Exiv2, which is not ours."""

import struct

import cv2
import numpy as np
import pyexiv2
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import IFDRational

from cyclegan.images import encode_image, image_size, read_image, read_metadata, write_image
from cyclegan.metadata import Metadata, tags

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
EXIF = {
    "Exif.Image.Artist": "Ümit Çelik",
    "Exif.Image.Copyright": "© 2026 Ümit Çelik",
    "Exif.Image.ImageDescription": "a staircase",
    "Exif.Photo.ExposureTime": "1/250",
    "Exif.Photo.UserComment": "charset=Ascii seen at noon",
    "Exif.GPSInfo.GPSLatitude": "48/1 51/1 30/1",
}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:xmp="http://ns.adobe.com/xap/1.0/"><xmp:CreatorTool>test</xmp:CreatorTool></rdf:Description></rdf:RDF></x:xmpmeta>'
FORMATS = [".jpg", ".png", ".webp", ".tif"]


def profile_for(space: bytes) -> bytes:
    """A colour profile's header, which is as far as anyone looks here."""
    return SRGB[:16] + space + SRGB[20:]


def exif_of(path):
    with pyexiv2.Image(str(path)) as image:
        return image.read_exif()


def add_exif(path, **more):
    with pyexiv2.Image(str(path)) as image:
        image.modify_exif(
            {**EXIF, **{f"Exif.{key.replace('__', '.')}": value for key, value in more.items()}}
        )


def kept(path):
    """The entries of EXIF above, as Exiv2 finds them."""
    found = exif_of(path)
    return {key: found.get(key) for key in EXIF}


@pytest.fixture
def source(tmp_path):
    """A file lying on its side, with all that a camera and an editor may have said."""

    def write(suffix, deep=False, size=(24, 40)):
        path = tmp_path / f"source{suffix}"
        pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        if deep:
            write_image(path, pixels.astype(np.uint16) * 257, metadata=Metadata(SRGB))
        else:
            Image.fromarray(pixels).save(path, icc_profile=SRGB)
        add_exif(path, Image__Orientation="6", Photo__PixelXDimension="40", Photo__PixelYDimension="24")
        return path

    return write


@pytest.mark.parametrize("out", FORMATS)
@pytest.mark.parametrize("into", FORMATS)
def test_profile_exif_and_xmp_go_through_every_format(source, tmp_path, into, out):
    path, copy = source(into), tmp_path / f"copy{out}"
    before = kept(path)
    assert before["Exif.Image.Artist"] == EXIF["Exif.Image.Artist"]
    picture = read_image(path)
    assert picture.pixels.shape == (40, 24, 3)
    write_image(
        copy, picture.pixels, metadata=Metadata(picture.metadata.icc_profile, picture.metadata.exif, XMP)
    )
    assert kept(copy) == before
    found = exif_of(copy)
    assert found.get("Exif.Image.Orientation", "1") == "1"
    assert (found["Exif.Photo.PixelXDimension"], found["Exif.Photo.PixelYDimension"]) == ("24", "40")
    with pyexiv2.Image(str(copy)) as image:
        assert image.read_icc() == SRGB
        assert image.read_xmp() == {"Xmp.xmp.CreatorTool": "test"}
    assert read_metadata(copy).xmp == XMP
    assert Image.open(copy).size == (24, 40)


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_tiff_is_turned_upright_once(tmp_path, orientation, deep):
    """Pillow and OpenCV do it by themselves when they read a TIFF, and not when they read a JPEG."""
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = tmp_path / "turned.tif"
    write_image(path, pixels.astype(np.uint16) * 257 if deep else pixels)
    with pyexiv2.Image(str(path)) as image:
        image.modify_exif({"Exif.Image.Orientation": str(orientation)})
    lying = Image.fromarray(pixels)
    lying.getexif()[0x0112] = orientation
    upright = np.asarray(ImageOps.exif_transpose(lying))
    found = read_image(path).pixels
    np.testing.assert_array_equal(found // 257 if deep else found, upright)
    assert image_size(path) == upright.shape[:2]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_sixteen_bits_and_alpha_with_metadata(source, tmp_path, suffix, alpha, channels):
    picture, copy = read_image(source(suffix, deep=True), channels), tmp_path / f"copy{suffix}"
    assert picture.pixels.dtype == np.uint16
    opacity = np.arange(40 * 24, dtype=np.uint16).reshape(40, 24) * 60 if alpha else None
    profile = SRGB if channels == 3 else profile_for(b"GRAY")
    write_image(copy, picture.pixels, opacity, metadata=Metadata(profile, picture.metadata.exif, XMP))
    read = cv2.imread(str(copy), cv2.IMREAD_UNCHANGED).reshape(40, 24, -1)
    assert read.dtype == np.uint16
    if alpha:
        np.testing.assert_array_equal(read[:, :, -1], opacity)
        assert suffix == ".png" or Image.open(copy).tag_v2[338] == (2,)  # unassociated alpha
        read = read[:, :, :-1]
    np.testing.assert_array_equal(read[:, :, ::-1], np.broadcast_to(picture.pixels, read.shape))
    assert kept(copy) == kept(tmp_path / f"source{suffix}")
    with pyexiv2.Image(str(copy)) as image:
        # Grey with alpha is written as RGBA, which a grey profile is not for.
        assert image.read_icc() == (b"" if alpha and channels == 1 else profile)
        assert image.read_xmp() == {"Xmp.xmp.CreatorTool": "test"}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(tmp_path, suffix, order):
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112], exif[0x013B] = 8, "someone"
    exif.get_ifd(0x8769)[0x829A] = IFDRational(1, 250)
    exif.get_ifd(0x8825)[2] = (48.0, 51.0, 30.5)
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg", exif=exif.tobytes())
    picture = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / f"b{suffix}", picture.pixels, metadata=picture.metadata)
    found = exif_of(tmp_path / f"b{suffix}")
    assert found["Exif.Image.Artist"] == "someone"
    assert found["Exif.Photo.ExposureTime"] == "1/250"
    assert found.get("Exif.Image.Orientation", "1") == "1"
    assert Image.open(tmp_path / f"b{suffix}").getexif().get_ifd(0x8825)[2] == (48.0, 51.0, 30.5)


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png"])
def test_the_thumbnail_of_the_source_goes(source, tmp_path, suffix):
    path = source(".jpg")
    thumbnail = encode_image(".jpg", np.full((8, 8, 3), 200, np.uint8))
    with pyexiv2.Image(str(path)) as image:
        image.modify_thumbnail(thumbnail)
    assert thumbnail[:300] in path.read_bytes()
    exif = read_image(path).metadata.exif
    copy = tmp_path / f"copy{suffix}"
    write_image(copy, np.zeros((40, 24, 3), np.uint8), metadata=Metadata(exif=exif))
    with pyexiv2.Image(str(copy)) as image:
        assert image.read_thumbnail() == b""
    assert thumbnail[20:300] not in exif
    assert kept(copy) == kept(path)


def test_a_profile_of_other_channels_is_not_kept(tmp_path):
    Image.new("CMYK", (8, 8), (10, 90, 0, 0)).save(tmp_path / "press.jpg", icc_profile=profile_for(b"CMYK"))
    assert read_image(tmp_path / "press.jpg").metadata.icc_profile is None
    grey, gamma = tmp_path / "grey.png", profile_for(b"GRAY")
    Image.new("L", (8, 8), 90).save(grey, icc_profile=gamma)
    assert read_image(grey, channels=3).metadata.icc_profile is None
    assert read_image(grey, channels=1).metadata.icc_profile == gamma
    Image.new("RGB", (8, 8)).save(tmp_path / "colour.png", icc_profile=SRGB)
    assert read_image(tmp_path / "colour.png", channels=1).metadata.icc_profile is None
    # WebP knows no grey: it is written as RGB.
    write_image(tmp_path / "grey.webp", np.zeros((8, 8, 1), np.uint8), metadata=Metadata(gamma))
    assert "icc_profile" not in Image.open(tmp_path / "grey.webp").info


def test_exif_too_long_for_jpeg_loses_the_makers_note_first(tmp_path):
    exif = Image.Exif()
    exif[0x013B] = "someone"
    exif.get_ifd(0x8769)[0x927C] = bytes(range(256)) * 300
    exif.get_ifd(0x8769)[0x9286] = b"ASCII\0\0\0kept"
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", exif=exif.tobytes())
    picture = read_image(tmp_path / "a.png")
    for suffix, length in {".png": 76_800, ".webp": 76_800, ".jpg": None}.items():
        path = tmp_path / f"b{suffix}"
        write_image(path, picture.pixels, metadata=picture.metadata)
        found = Image.open(path).getexif()
        assert found[0x013B] == "someone"
        inner = found.get_ifd(0x8769)
        assert inner[0x9286] == b"ASCII\0\0\0kept"
        assert (len(inner[0x927C]) if 0x927C in inner else None) == length


def test_of_a_tiff_only_what_tells_of_the_picture_is_taken(tmp_path):
    tiff = {270: "ImageJ=1.53\nimages=40", 305: "a scanner", 32997: 40}
    Image.new("L", (8, 6)).save(tmp_path / "a.tif", tiffinfo=tiff, dpi=(300, 300))
    found = tags.read_tags(read_image(tmp_path / "a.tif", 1).metadata.exif)
    assert set(found) == {282, 283, 296, 305}
    assert found[305].value == b"a scanner\0"


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_says_nothing_gets_nothing(photograph, tmp_path, suffix):
    picture = read_image(photograph(f"plain{suffix}"))
    assert picture.metadata.icc_profile is None and picture.metadata.xmp is None
    write_image(tmp_path / f"copy{suffix}", picture.pixels)
    with pyexiv2.Image(str(tmp_path / f"copy{suffix}")) as image:
        assert (image.read_xmp(), image.read_icc()) == ({}, b"")


def test_damaged_exif_costs_the_exif_and_nothing_else(source):
    """Whatever is broken in it: an answer or a ValueError, and never more memory than the block is worth."""
    block = read_image(source(".jpg")).metadata.exif
    random = np.random.default_rng(0)
    for _ in range(400):
        broken = bytearray(block[: random.integers(8, len(block))])
        for at in random.integers(0, min(len(broken), 120), 3):
            broken[at] = random.integers(0, 256)
        try:
            tags.upright(bytes(broken), 40, 24)
            tags.exif_block(tags.read_tags(bytes(broken)))
        except ValueError:
            pass


def test_entries_that_share_their_bytes_are_refused():
    entry = [struct.pack("<HHII", tag, 1, 10_000, 0) for tag in range(4000)]
    bomb = b"II*\0" + struct.pack("<IH", 8, 4000) + b"".join(entry) + bytes(4)
    with pytest.raises(ValueError, match="again and again"):
        tags.read_tags(bomb)
