"""What other programs wrote of rights into a file is found: XMP, IPTC, EXIF, PNG's texts, C2PA."""

import json
import shutil
import subprocess
from io import BytesIO

import c2pa
import pyexiv2
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_signing import MIME, make_pair, write_pair

from cyclegan.metadata.rights import rights_of

BY = "https://creativecommons.org/licenses/by/4.0/"
ZERO = "https://creativecommons.org/publicdomain/zero/1.0/"


def says(path):
    return {(s.where, s.kind, s.text) for s in rights_of(path.read_bytes()).statements}


def with_exiftool(path, **tags):
    words = [f"-{name.replace('__', ':').replace('_', '-')}={value}" for name, value in tags.items()]
    command = ["exiftool", "-overwrite_original", "-q", "-m", *words, str(path)]
    subprocess.run(command, check=True, capture_output=True)


def with_exiv2(path, exif=None, iptc=None, xmp=None):
    with pyexiv2.Image(str(path)) as image:
        for modify, values in ((image.modify_exif, exif), (image.modify_iptc, iptc), (image.modify_xmp, xmp)):
            if values:
                modify(values)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_what_exiv2_wrote_is_read(photograph, suffix):
    path = photograph(f"a{suffix}")
    exif = {"Exif.Image.Copyright": "2020 Jané", "Exif.Image.Artist": "Jané"}
    iptc = {"Iptc.Application2.Copyright": "© Jané", "Iptc.Application2.Byline": ["Jané", "Jo"]}
    xmp = {
        "Xmp.xmpRights.UsageTerms": {'lang="x-default"': "CC BY 4.0"},
        "Xmp.xmpRights.WebStatement": BY,
        "Xmp.dc.rights": {'lang="x-default"': "© Jané"},
        "Xmp.dc.creator": ["Jané", "Jo"],
    }
    with_exiv2(path, exif, None if suffix == ".webp" else iptc, xmp)
    expected = {
        ("EXIF Copyright", "notice", "2020 Jané"),
        ("EXIF Artist", "creator", "Jané"),
        ("XMP xmpRights:UsageTerms", "licence", "CC BY 4.0"),
        ("XMP xmpRights:WebStatement", "licence", BY),
        ("XMP dc:rights", "notice", "© Jané"),
        ("XMP dc:creator", "creator", "Jané"),
        ("XMP dc:creator", "creator", "Jo"),
    }
    if suffix != ".webp":  # has no place for IPTC
        expected |= {("IPTC CopyrightNotice", "notice", "© Jané"), ("IPTC By-line", "creator", "Jané")}
        expected |= {("IPTC By-line", "creator", "Jo")}
    assert says(path) == expected


@pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
def test_what_exiftool_wrote_is_read(photograph, suffix):
    path = photograph(f"a{suffix}")
    with_exiftool(
        path, XMP_cc__License=ZERO, IPTC__CopyrightNotice="Jo", EXIF__Copyright="Jo", XMP_dc__Creator="Jo"
    )
    found = says(path)
    assert ("XMP cc:license", "licence", ZERO) in found
    assert ("EXIF Copyright", "notice", "Jo") in found
    assert ("XMP dc:creator", "creator", "Jo") in found
    assert (("IPTC CopyrightNotice", "notice", "Jo") in found) == (suffix != ".webp")


@pytest.mark.parametrize(
    "part",
    [
        '<rdf:li rdf:parseType="Resource"><plus:CopyrightOwnerName>Jané</plus:CopyrightOwnerName></rdf:li>',
        '<rdf:li plus:CopyrightOwnerName="Jané"/>',
        '<rdf:li><rdf:Description plus:CopyrightOwnerName="Jané"/></rdf:li>',
    ],
)
def test_names_in_a_structure_are_found_however_it_is_written(tmp_path, part):
    """XMP specification part 1 §7.9: the forms that RDF/XML has for one and the same."""
    packet = (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        '<rdf:Description rdf:about="" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/">'
        f"<plus:CopyrightOwner><rdf:Seq>{part}</rdf:Seq></plus:CopyrightOwner>"
        "</rdf:Description></rdf:RDF></x:xmpmeta>"
    )
    path = tmp_path / "a.jpg"
    Image.new("RGB", (8, 8)).save(path, xmp=packet.encode())
    assert says(path) == {("XMP plus:CopyrightOwnerName", "creator", "Jané")}


def test_texts_of_png_and_files_that_say_nothing(tmp_path, photograph):
    info = PngInfo()
    info.add_text("Copyright", "Jo, CC0 1.0")
    info.add_itxt("Author", "Jané")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", pnginfo=info)
    assert says(tmp_path / "a.png") == {
        ("PNG Copyright", "notice", "Jo, CC0 1.0"), ("PNG Author", "creator", "Jané")
    }  # fmt: skip
    for suffix in (".jpg", ".png", ".tif", ".webp", ".bmp"):
        assert says(photograph(f"b{suffix}")) == set()


PACKET = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description rdf:about="" xmlns:plus="http://ns.useplus.org/ldf/xmp/1.0/" '
    b'plus:DataMining="http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"/></rdf:RDF></x:xmpmeta>'
)
# One entry in the first directory, a short ASCII value in its place: TIFF 6.0 §2.
ARTIST = b"MM\0*\0\0\0\x08" + b"\0\x01" + b"\x01\x3b\0\x02\0\0\0\x03Jo\0\0" + b"\0\0\0\0"
MINING = ("XMP plus:DataMining", "mining", "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED")


def with_profile(path, keyword, block, name=None, zipped=True):
    """A PNG with a block in hex digits, 36 bytes a line, as ImageMagick lays it out."""
    info = PngInfo()
    digits = "\n".join(block[at : at + 36].hex() for at in range(0, len(block), 36))
    info.add_text(
        f"Raw profile type {keyword}", f"\n{name or keyword}\n{len(block):8}\n{digits}\n", zip=zipped
    )
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", [None, "generic profile"])
def test_profiles_in_texts_of_png(tmp_path, name, zipped):
    path, artist = tmp_path / "a.png", ("EXIF Artist", "creator", "Jo")
    for keyword, block, expected in (
        ("xmp", PACKET, MINING),
        ("exif", b"Exif\0\0" + ARTIST, artist),
        ("APP1", b"http://ns.adobe.com/xap/1.0/\0" + PACKET, MINING),
        ("APP1", b"Exif\0\0" + ARTIST, artist),
    ):
        with_profile(path, keyword, block, name, zipped)
        rights = rights_of(path.read_bytes())
        assert says(path) == {expected} and rights.unread == ()


def test_damaged_metadata_is_told_and_is_no_crash(tmp_path):
    image = Image.new("RGB", (8, 8))
    path = tmp_path / "a.jpg"
    image.save(path, exif=b"Exif\0\0MM\0*\0\0\xff\xff", xmp=b"<x:xmpmeta><broken")
    xmp, exif = rights_of(path.read_bytes()).unread
    assert xmp.startswith("its XMP cannot be read (") and exif.startswith("its EXIF cannot be read (")
    for name in ("exif", "iptc", "xmp"):
        info = PngInfo()
        info.add_text(f"Raw profile type {name}", f"\n{name}\n 8\n3842494d0404zz")
        image.save(tmp_path / "a.png", pnginfo=info)
        (fault,) = rights_of((tmp_path / "a.png").read_bytes()).unread
        assert fault.startswith(f"its {name.upper()} cannot be read (")
    for keyword, text in (("xmp", ""), ("xmp", "\nxmp\n"), ("APP1", "\nAPP1\n 8\nzz")):
        info = PngInfo()
        info.add_text(f"Raw profile type {keyword}", text)
        image.save(tmp_path / "a.png", pnginfo=info)
        assert rights_of((tmp_path / "a.png").read_bytes()).unread[0].startswith("its XMP cannot be read (")
    image.save(path, xmp=b'<!DOCTYPE a [<!ENTITY b "c">]><a/>')
    assert rights_of(path.read_bytes()).unread == ("its XMP declares entities, which XMP does not have",)


def signed(tmp_path, source, assertions, parent=None):
    """A picture with a C2PA manifest, by c2pa-python itself; made from the bytes ``parent`` if there are any."""
    authority = make_pair("Root", ca=True)
    write_pair(tmp_path, "chain", make_pair("Signer", authority), authority[1])
    info = c2pa.C2paSignerInfo(
        b"es256", (tmp_path / "chain.pem").read_bytes(), (tmp_path / "chain.key").read_bytes(), None
    )
    action = {
        "action": "c2pa.created",
        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
    }
    if parent is not None:
        action = {"action": "c2pa.opened", "parameters": {"ingredientIds": ["parent"]}}
    listed = [{"label": "c2pa.actions.v2", "data": {"actions": [action]}}, *assertions]
    manifest = {
        "title": "a",
        "claim_generator_info": [{"name": "test", "version": "1"}],
        "assertions": listed,
    }
    out = tmp_path / f"signed{source.suffix}"
    mime = MIME[source.suffix]
    given = BytesIO(source.read_bytes())
    with c2pa.Builder(manifest) as builder, c2pa.Signer.from_info(info) as signer, out.open("w+b") as target:
        if parent is not None:
            ingredient = {"title": "parent", "relationship": "parentOf", "label": "parent"}
            builder.add_ingredient(json.dumps(ingredient), mime, BytesIO(parent))
        builder.sign(signer, mime, given, target)
    return out


WORK = {
    "label": "stds.schema-org.CreativeWork",
    "data": {
        "@context": "https://schema.org", "@type": "CreativeWork", "license": BY,
        "author": [{"@type": "Person", "name": "Jané"}], "copyrightNotice": "© Jané",
    },
}  # fmt: skip


def mining(use):
    entries = {"cawg.ai_generative_training": {"use": use}, "cawg.ai_inference": {"use": "notAllowed"}}
    return {"label": "cawg.training-mining", "data": {"entries": entries}}


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_content_credentials(photograph, tmp_path, suffix):
    path = signed(tmp_path, photograph(f"a{suffix}"), [WORK, mining("notAllowed")])
    label = WORK["label"]
    assert says(path) == {
        (f"C2PA {label}", "licence", BY),
        (f"C2PA {label}", "creator", "Jané"),
        (f"C2PA {label}", "notice", "© Jané"),
        ("C2PA cawg.training-mining", "mining", "cawg.ai_generative_training: notAllowed"),
    }


def test_metadata_of_exif_in_content_credentials(photograph, tmp_path):
    """C2PA 1.4's Exif information: JSON-LD, whose names are XMP's."""
    for name in ("tiff:Copyright", "exif:Copyright"):
        context = {"exif": "http://ns.adobe.com/exif/1.0/", "tiff": "http://ns.adobe.com/tiff/1.0/"}
        facts = {"@context": context, name: "© Jané", "tiff:Artist": ["Jo"]}
        path = signed(tmp_path, photograph("a.jpg"), [{"label": "stds.exif", "data": facts, "kind": "Json"}])
        assert says(path) == {
            (f"C2PA stds.exif {name}", "notice", "© Jané"),
            ("C2PA stds.exif tiff:Artist", "creator", "Jo"),
        }


def test_what_credentials_grant_counts_only_while_they_hold(photograph, tmp_path):
    path = signed(tmp_path, photograph("a.jpg", size=(64, 64)), [WORK, mining("allowed")])
    assert all(kind != "mining" for _, kind, _ in says(path))
    data = bytearray(path.read_bytes())
    data[-30] ^= 1  # of the pixels
    rights = rights_of(bytes(data))
    assert rights.statements == ()
    assert any(BY in reason and "does not hold" in reason for reason in rights.unread)


def test_what_a_picture_was_made_from_has_a_say(photograph, tmp_path):
    path = photograph("a.jpg", size=(64, 64))
    parent = signed(tmp_path, path, [WORK, mining("notAllowed")]).read_bytes()
    grandparent = signed(tmp_path, path, [], parent).read_bytes()
    label = WORK["label"]
    expected = {
        (f"C2PA ingredient {label}", "licence", BY),
        (f"C2PA ingredient {label}", "creator", "Jané"),
        (f"C2PA ingredient {label}", "notice", "© Jané"),
        ("C2PA ingredient cawg.training-mining", "mining", "cawg.ai_generative_training: notAllowed"),
    }
    for data in (parent, grandparent):
        made = signed(tmp_path, path, [], data)
        assert says(made) == expected
    # An ingredient that was changed before it went in grants nothing, and what it forbids stays forbidden.
    changed = bytearray(parent)
    changed[-30] ^= 1
    rights = rights_of(signed(tmp_path, path, [], bytes(changed)).read_bytes())
    assert [said.kind for said in rights.statements] == ["mining"]
    assert any(BY in reason and "does not hold" in reason for reason in rights.unread)


def test_what_one_packet_allows_another_may_forbid():
    info, made = PngInfo(), BytesIO()
    info.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:x="adobe:ns:meta/"/>')
    info.add_text("Raw profile type xmp", f"\nxmp\n{len(PACKET):8}\n{PACKET.hex()}\n")
    Image.new("RGB", (8, 8)).save(made, "PNG", pnginfo=info)
    assert [said.kind for said in rights_of(made.getvalue()).statements] == ["mining"]


def test_every_exif_of_a_png_is_read():
    """The chunk of PNG 3rd edition §11.3.3.6, and what older programs put into a text."""
    info, made = PngInfo(), BytesIO()
    other = b"Exif\0\0" + ARTIST.replace(b"Jo\0", b"Al\0")
    info.add_text("Raw profile type exif", f"\nexif\n{len(other):8}\n{other.hex()}\n")
    Image.new("RGB", (8, 8)).save(made, "PNG", pnginfo=info, exif=b"Exif\0\0" + ARTIST)
    assert [said.text for said in rights_of(made.getvalue()).statements] == ["Jo", "Al"]
