"""Every packet of a file is read, wherever its format may hold one, and what cannot be read is told."""

import struct
import zlib
from io import BytesIO
from itertools import pairwise

import pytest
from PIL import Image

from cyclegan.datasets.audit import audit_folder
from cyclegan.images import read_image, write_image
from cyclegan.metadata import packets
from cyclegan.metadata.rights import rights_of

XMP_MARK, EXTENSION_MARK = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
NAMESPACES = {
    "cc": "http://creativecommons.org/ns#",
    "old": "http://web.resource.org/cc/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "dcterms": "http://purl.org/dc/terms/",
    "exif": "http://ns.adobe.com/exif/1.0/",
    "photoshop": "http://ns.adobe.com/photoshop/1.0/",
    "plus": "http://ns.useplus.org/ldf/xmp/1.0/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
    "xmpRights": "http://ns.adobe.com/xap/1.0/rights/",
}


def packet(properties="", attributes=""):
    """An XMP packet with ``properties`` in RDF/XML."""
    spaces = "".join(f' xmlns:{prefix}="{address}"' for prefix, address in NAMESPACES.items())
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about=""{spaces} {attributes}>{properties}</rdf:Description></rdf:RDF></x:xmpmeta>'
    ).encode()


ALLOWS, FORBIDS = packet(attributes='plus:DataMining="DMI-ALLOWED"'), packet("<dc:rights>No AI</dc:rights>")
FORBIDDEN = ("XMP dc:rights", "notice", "No AI")


def picture(kind, **options):
    made = BytesIO()
    Image.new("RGB", (8, 8)).save(made, kind, **options)
    return made.getvalue()


def says(data):
    rights = rights_of(data)
    assert rights.unread == ()
    return [(s.where, s.kind, s.text) for s in rights.statements]


def segment(body, marker=0xE1):
    return struct.pack(">BBH", 255, marker, len(body) + 2) + body


def jpeg(*segments):
    data = picture("JPEG")
    return data[:2] + b"".join(segments) + data[2:]


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(*chunks):
    data = picture("PNG")
    return data[:33] + b"".join(chunks) + data[33:]


def text(keyword, value):
    return chunk(b"tEXt", keyword + b"\0" + value)


def itxt(keyword, value, zipped=False):
    value = zlib.compress(value) if zipped else value
    return chunk(b"iTXt", keyword + bytes([0, zipped, 0]) + b"en\0" + keyword + b"\0" + value)


def profile(keyword, block, zipped=False):
    value = f"\n{keyword}\n{len(block):8}\n{block.hex()}\n".encode()
    name = f"Raw profile type {keyword}".encode()
    return chunk(b"zTXt", name + b"\0\0" + zlib.compress(value)) if zipped else text(name, value)


def dataset(number, value, extended=False):
    """IIM 4.2 §1.5, of record 2."""
    length = struct.pack(">HI", 0x8004, len(value)) if extended else struct.pack(">H", len(value))
    return bytes((28, 2, number)) + length + value


def resource(number, data, signature=b"8BIM", name=b"", padded=True):
    head = signature + struct.pack(">H", number) + bytes([len(name)]) + name
    head += b"\0" * (len(head) % 2) + struct.pack(">I", len(data))
    return head + data + b"\0" * (len(data) % 2 * padded)


def directory(*entries, order=">"):
    """One TIFF directory (TIFF 6.0 §2): tag, type, bytes."""
    mark = b"MM\0*" if order == ">" else b"II*\0"
    table, heap, at = b"", b"", 8 + 2 + 12 * len(entries) + 4
    for tag, kind, value in entries:
        stored = value.ljust(4, b"\0") if len(value) <= 4 else struct.pack(order + "I", at + len(heap))
        heap += value if len(value) > 4 else b""
        table += struct.pack(order + "HHI", tag, kind, len(value) // {3: 2, 13: 4}.get(kind, 1)) + stored
    return mark + struct.pack(order + "IH", 8, len(entries)) + table + bytes(4) + heap


def webp(*chunks):
    body = picture("WEBP")[12:] + b"".join(
        name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2) for name, data in chunks
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def extension(whole, *cuts, guid=b"A" * 32):
    """XMP specification part 3 §1.1.3.1: portions of a packet, each in a segment of its own."""
    edges = [0, *cuts, len(whole)]
    return [
        segment(EXTENSION_MARK + guid + struct.pack(">II", len(whole), start) + whole[start:end])
        for start, end in pairwise(edges)
    ]


NOTICE = dataset(116, b"No AI")
IPTC = ("IPTC CopyrightNotice", "notice", "No AI")
COPYRIGHT = directory((33432, 2, b"No AI\0"))
EXIF = ("EXIF Copyright", "notice", "No AI")


def test_every_packet_of_a_jpeg_is_read():
    first, second = segment(XMP_MARK + ALLOWS), segment(XMP_MARK + FORBIDS)
    for order in ((first, second), (second, first)):
        assert says(jpeg(*order)) == [FORBIDDEN]
    third = segment(b"Exif\0\0" + directory((315, 2, b"Jo\0")))
    found = says(jpeg(third, segment(b"Exif\0\xff" + COPYRIGHT)))
    assert found == [("EXIF Artist", "creator", "Jo"), EXIF]
    # One that stands behind padding, or between the scans (ITU-T T.81 §B.1.1.2, §B.2.4)
    assert says(jpeg(first, b"\xff\xff\xff" + second)) == [FORBIDDEN]
    made = picture("JPEG", progressive=True)
    at = made.rindex(b"\xff\xda")
    assert says(made[:at] + second + made[at:]) == [FORBIDDEN]
    assert says(made + second) == []  # behind its end there is no picture


def test_exif_that_fills_a_segment_goes_on_in_the_next():
    whole = directory((37510, 7, b"x" * 70_000), (33432, 2, b"No AI\0"))
    parts = [segment(b"Exif\0\0" + part) for part in (whole[:65_520], whole[65_520:])]
    assert says(jpeg(*parts)) == [EXIF]


def test_an_extension_of_xmp_is_put_together():
    main = segment(XMP_MARK + ALLOWS)
    first, second, third = extension(FORBIDS, 100, 200)
    for order in ((first, second, third), (third, first, second), (first, first, second, third)):
        assert says(jpeg(main, *order)) == [FORBIDDEN]
    other = extension(packet("<dc:creator>Jo</dc:creator>"), 50, guid=b"B" * 32)
    found = says(jpeg(main, first, other[1], second, other[0], third))
    assert set(found) == {FORBIDDEN, ("XMP dc:creator", "creator", "Jo")}
    for missing in ((first, third), (second, third), (first, second), (third,)):
        rights = rights_of(jpeg(main, *missing))
        assert rights.unread == ("its XMP cannot be read (the extension is not whole)",)
        assert rights.statements == ()
    # Two that contradict each other
    forged = segment(second[4:].replace(second[-5:], b"<a/>."))
    assert rights_of(jpeg(main, first, second, forged, third)).unread != ()


def test_every_resource_of_photoshop_is_read():
    line = dataset(80, b"Jo")
    several = resource(0x0404, line) + resource(0x0404, NOTICE)
    by = ("IPTC By-line", "creator", "Jo")
    for block, expected in (
        (several, [by, IPTC]),
        (resource(0x03ED, b"123", b"AgHg", b"a name") + resource(0x0404, NOTICE), [IPTC]),
        (resource(0x03ED, b"123", padded=False) + resource(0x0404, NOTICE), [IPTC]),
        (resource(0x0404, NOTICE, b"MeSa"), []),
        (resource(0x0404, dataset(116, b"No AI", extended=True)), [IPTC]),
        (resource(0x0424, FORBIDS) + resource(0x0422, COPYRIGHT), [FORBIDDEN, EXIF]),
        (resource(0x0404, NOTICE) + bytes(6), [IPTC]),
        (resource(0x0404, b""), []),
    ):
        assert says(jpeg(segment(PHOTOSHOP + block, 0xED))) == expected
    halves = (segment(PHOTOSHOP + part, 0xED) for part in (several[:21], several[21:]))
    assert says(jpeg(*halves)) == [by, IPTC]
    assert says(jpeg(*(segment(PHOTOSHOP + resource(0x0404, d), 0xED) for d in (line, NOTICE)))) == [by, IPTC]


def test_every_chunk_of_a_png_is_read():
    for keyword in (b"XML:com.adobe.xmp", b"xmp", b"XMP"):
        for second in (itxt(keyword, FORBIDS), itxt(keyword, FORBIDS, zipped=True), text(keyword, FORBIDS)):
            assert says(png(itxt(b"XML:com.adobe.xmp", ALLOWS), second)) == [FORBIDDEN]
    assert says(png(chunk(b"eXIf", directory((315, 2, b"Jo\0"))), chunk(b"eXIf", COPYRIGHT)))[1] == EXIF
    chunks = (
        text(b"Copyright", b"CC0"),
        text(b"copyright", "© Jané".encode("latin-1")),
        chunk(b"zTXt", b"COPYRIGHT\0\0" + zlib.compress(b"Jo")),
        itxt(b"author", "Jané".encode()),
        itxt(b"Author", b"Al", zipped=True),
        text(b"Disclaimer", b"No AI"),
        text(b"Comment", b"nothing"),
    )
    assert says(png(*chunks)) == [
        ("PNG Copyright", "notice", "CC0"),
        ("PNG Copyright", "notice", "© Jané"),
        ("PNG Copyright", "notice", "Jo"),
        ("PNG Author", "creator", "Jané"),
        ("PNG Author", "creator", "Al"),
        ("PNG Disclaimer", "terms", "No AI"),
    ]


@pytest.mark.parametrize("zipped", [False, True])
def test_profiles_of_a_png(zipped):
    extended = [part[4:] for part in extension(FORBIDS, 100)]
    for blocks, expected in (
        ({"8bim": resource(0x03ED, b"1") + resource(0x0404, NOTICE)}, IPTC),
        ({"iptc": resource(0x0404, dataset(80, b"")) + resource(0x0404, NOTICE)}, IPTC),
        ({"iptc": NOTICE}, IPTC),
        ({"IPTC": PHOTOSHOP + resource(0x0404, NOTICE)}, IPTC),
        ({"app1": extended[0], "APP1": extended[1]}, FORBIDDEN),
        ({"APP1": b"Exif\0\0" + COPYRIGHT}, EXIF),
        ({"exif": XMP_MARK + FORBIDS}, FORBIDDEN),
        ({"exif": COPYRIGHT}, EXIF),
        ({"xmp": FORBIDS}, FORBIDDEN),
        ({"icc": b"no matter"}, None),
    ):
        found = says(png(*(profile(name, block, zipped) for name, block in blocks.items())))
        assert found == ([expected] if expected else [])


def test_chunks_of_webp():
    found = says(
        webp((b"XMP ", ALLOWS), (b"EXIF", COPYRIGHT), (b"XMP ", FORBIDS), (b"EXIF", b"Exif\0\0" + COPYRIGHT))
    )
    assert found == [FORBIDDEN, EXIF]
    cut = webp((b"XMP ", FORBIDS))
    cut = cut[:4] + struct.pack("<I", len(cut) - 8) + cut[8:-20]
    assert rights_of(cut).unread == ("its chunks cannot be read (one is longer than the file)",)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_of_a_tiff(order):
    for entries, expected in (
        ([(34377, 7, resource(0x0404, NOTICE))], [IPTC]),
        (
            [(34377, 1, resource(0x03ED, b"1") + resource(0x0404, NOTICE)), (33723, 7, dataset(80, b""))],
            [IPTC],
        ),
        (
            [(33723, 7, NOTICE), (34377, 7, resource(0x0404, dataset(80, b"Jo")))],
            [IPTC, ("IPTC By-line", "creator", "Jo")],
        ),
        ([(33723, 7, resource(0x0404, NOTICE))], [IPTC]),
        ([(700, 1, FORBIDS + b"\0"), (33432, 2, b"No AI\0")], [FORBIDDEN, EXIF]),
    ):
        assert says(directory(*entries, order=order)) == expected
    strange = rights_of(directory((700, 99, FORBIDS), order=order)).unread
    assert strange == ("its XMP cannot be read (tag 700 is of an unknown type)",)


@pytest.mark.parametrize("order", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("padding", ["", " \n", "\n\0"])
def test_xmp_in_utf16_is_read_whole(order, padding):
    forbids = FORBIDS.decode()
    assert says(jpeg(segment(XMP_MARK + (forbids + padding).encode(order)))) == [FORBIDDEN]
    declared = f'<?xml version="1.0" encoding="UTF-16"?>{forbids}{padding}'.encode(order)
    assert says(jpeg(segment(XMP_MARK + declared))) == [FORBIDDEN]
    entities = f'<!DOCTYPE a [<!ENTITY b "c">]>{forbids}'.encode(order)
    (fault,) = rights_of(jpeg(segment(XMP_MARK + entities))).unread
    assert fault == "its XMP declares entities, which XMP does not have"
    (fault,) = rights_of(jpeg(segment(XMP_MARK + forbids.encode(order)[:-60]))).unread
    assert fault.startswith("its XMP cannot be read (")


def test_text_in_utf8_of_exif_3_is_read_and_what_is_no_text_is_told(tmp_path):
    """EXIF 3.0 §4.6.2: type 129."""
    block = directory((315, 129, "Jané\0".encode()), (33432, 129, "© 日本\0".encode()))
    assert says(jpeg(segment(b"Exif\0\0" + block))) == [
        ("EXIF Copyright", "notice", "© 日本"),
        ("EXIF Artist", "creator", "Jané"),
    ]
    # A TIFF has no such type, but the text itself goes on.
    (tmp_path / "a.jpg").write_bytes(jpeg(segment(b"Exif\0\0" + block)))
    given = read_image(tmp_path / "a.jpg")
    write_image(tmp_path / "a.tif", given.pixels, metadata=given.metadata)
    assert ("EXIF Artist", "creator", "Jané") in says((tmp_path / "a.tif").read_bytes())
    with Image.open(tmp_path / "a.tif") as image:
        assert image.tag_v2[315] == "Jané".encode().decode("latin-1")
    for kind in (3, 13, 130, 200):
        rights = rights_of(jpeg(segment(b"Exif\0\0" + directory((33432, kind, b"No AI...")))))
        told = "its EXIF Copyright cannot be read (it is of a type that is no text)"
        assert rights.statements == () and rights.unread == (told,)
    assert says(jpeg(segment(b"Exif\0\0" + directory((40000, 200, b"1234"))))) == []  # nobody's rights


BOMB = zlib.compress(bytes(packets._MOST_TEXT + 1))


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (png(chunk(b"zTXt", b"Copyright\0\0" + BOMB)), "PNG Copyright"),
        (png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB)), "XMP"),
        (png(chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(FORBIDS)[:-9])), "XMP"),
        (png(chunk(b"zTXt", b"Author\0\0no stream")), "PNG Author"),
        (png(chunk(b"zTXt", b"Author")), "PNG Author"),
        (png(chunk(b"iTXt", b"Author\0\0")), "PNG Author"),
        (png(text(b"Raw profile type 8bim", b"\n8bim\n 2\n38zz")), "IPTC"),
        (png(text(b"Raw profile type xmp", "\nxmp\n 2\né".encode())), "XMP"),
        (png(profile("8bim", b"no resource")), "IPTC"),
        (png(profile("iptc", b"no dataset")), "IPTC"),
        (png(text(b"xmp", b"hello")), "XMP"),
        (jpeg(segment(PHOTOSHOP + resource(0x0404, NOTICE)[:-2], 0xED)), "IPTC"),
        (jpeg(segment(PHOTOSHOP + resource(0x0404, NOTICE[:-2]), 0xED)), "IPTC"),
        (jpeg(segment(PHOTOSHOP + resource(0x0404, NOTICE + b"more"), 0xED)), "IPTC"),
        (jpeg(segment(PHOTOSHOP + resource(0x0404, b"\x1c\2"), 0xED)), "IPTC"),
        (jpeg(segment(PHOTOSHOP + b"8BIM", 0xED)), "IPTC"),
        (jpeg(segment(EXTENSION_MARK + b"short")), "XMP"),
        (jpeg(segment(b"Exif\0\0")), "EXIF"),
        (jpeg(segment(XMP_MARK + b'<?xml version="1.0" encoding="no-such"?><a/>')), "XMP"),
        (jpeg(segment(XMP_MARK + b"<a>" * 20_000)), "XMP"),
        (b"\xff\xd8\xff\xe1\xff\xffExif", "segments"),
        (b"\xff\xd8\xff\xe1", "segments"),
        (png()[:33] + b"\0\0\xff\xfftEXtCopyright\0", "chunks"),
        (b"II*\0", "EXIF"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_and_is_no_crash(data, told):
    (fault,) = rights_of(data).unread
    assert fault.startswith(f"its {told} cannot be read (")


def test_other_formats_are_told():
    assert rights_of(picture("BMP")) == rights_of(b"BM") and rights_of(b"BM").unread == ()
    assert rights_of(b"8BPS").unread == ("its format is none whose metadata are known",)


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_texts_of_a_png_that_are_called_as_something_else_are_only_texts(tmp_path, mode):
    for number, keyword in enumerate((b"exif", b"photoshop", b"transparency", b"icc_profile", b"xmp")):
        for each, make in enumerate((text, itxt)):
            made = picture("PNG") if mode == "RGB" else BytesIO()
            if mode != "RGB":
                Image.new(mode, (8, 8)).save(made, "PNG")
                made = made.getvalue()
            data = made[:33] + make(keyword, b"hello") + made[33:]
            (tmp_path / f"{number}{each}.png").write_bytes(data)
    audit = audit_folder(tmp_path)
    assert [path.name for path, reason in audit.unread()] == ["40.png", "41.png"]  # which should be XMP
    assert audit.counts() == {"": {"unknown": 10}}
