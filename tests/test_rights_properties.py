"""The properties that speak of rights, in each form that their standards have."""

from io import BytesIO

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from test_rights_packets import PHOTOSHOP, XMP_MARK, dataset, jpeg, packet, resource, says, segment

from cyclegan.datasets.licences import names_terms
from cyclegan.metadata.rights import rights_of

VOCABULARY = {
    "DMI-UNSPECIFIED": False,
    "DMI-ALLOWED": False,
    "DMI-PROHIBITED-AIMLTRAINING": True,
    "DMI-PROHIBITED-GENAIMLTRAINING": True,
    "DMI-PROHIBITED-EXCEPTSEARCHENGINEINDEXING": True,
    "DMI-PROHIBITED": True,
    "DMI-PROHIBITED-SEECONSTRAINT": True,
    "DMI-PROHIBITED-SEEEMBEDDEDRIGHTSEXPR": True,
    "DMI-PROHIBITED-SEELINKEDRIGHTSEXPR": True,
    # Of a later vocabulary, or of none
    "DMI-PROHIBITED-LATER": True,
    "DMI-OTHER": True,
    "Prohibited": True,
}


@pytest.mark.parametrize("address", ["", "http://ns.useplus.org/ldf/vocab/"])
@pytest.mark.parametrize("word", VOCABULARY)
def test_all_words_of_plus_for_data_mining(word, address):
    """PLUS LDF 2.0.1, "Data Mining"."""
    said = [("XMP plus:DataMining", "mining", address + word)] if VOCABULARY[word] else []
    for block in (
        packet(attributes=f'plus:DataMining="{address}{word}"'),
        packet(f"<plus:DataMining>\n {address}{word} </plus:DataMining>"),
    ):
        assert says(jpeg(segment(XMP_MARK + block))) == said


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("cc:license", "licence"),
        ("old:license", "licence"),
        ("dcterms:license", "licence"),
        ("plus:OtherConstraints", "licence"),
        ("dcterms:rights", "notice"),
        ("tiff:Copyright", "notice"),
        ("exif:Copyright", "notice"),
        ("photoshop:Instructions", "terms"),
        ("tiff:Artist", "creator"),
        ("exif:Artist", "creator"),
    ],
)
def test_properties_of_xmp(name, kind):
    expected = [(f"XMP {name.replace('old:', 'cc:')}", kind, "words")]
    for body in (
        "words",
        "<rdf:Alt><rdf:li xml:lang='x-default'>words</rdf:li></rdf:Alt>",
        "<rdf:Bag><rdf:li rdf:parseType='Resource'><rdf:value>words</rdf:value></rdf:li></rdf:Bag>",
        "<rdf:Description><rdf:value>words</rdf:value><dc:type>no matter</dc:type></rdf:Description>",
        "<rdf:Seq><rdf:li rdf:value='words'/></rdf:Seq>",
        "<old:License rdf:about='words'/>",
    ):
        assert says(jpeg(segment(XMP_MARK + packet(f"<{name}>{body}</{name}>")))) == expected
    for block in (
        packet(attributes=f'{name}="words"'),
        packet(f'<{name} rdf:resource="words"/>'),
        packet(f'<{name} rdf:value="words"/>'),
        packet(f'<{name} rdf:parseType="Resource"><rdf:value>words</rdf:value></{name}>'),
        packet(f'<{name} rdf:parseType="Literal"><p>wo<b>rd</b>s</p></{name}>'),
    ):
        assert says(jpeg(segment(XMP_MARK + block))) == expected


def test_special_instructions_of_iptc_are_terms():
    block = resource(0x0404, dataset(40, "Not for AI training, Jané".encode("latin-1")))
    expected = ("IPTC SpecialInstructions", "terms", "Not for AI training, Jané")
    assert says(jpeg(segment(PHOTOSHOP + block, 0xED))) == [expected]


@pytest.mark.parametrize("form", ['dcterms:provenance="{}"', "<dcterms:provenance>{}</dcterms:provenance>"])
def test_a_manifest_that_lies_elsewhere_is_told(form):
    def with_address(address):
        words = form.format(address)
        block = packet(words) if form.startswith("<") else packet(attributes=words)
        return rights_of(jpeg(segment(XMP_MARK + block)))

    told = "its C2PA manifest at https://example.org/a.c2pa is not fetched"
    assert with_address(" https://example.org/a.c2pa ").unread == (told,)
    assert with_address("self#jumbf=/c2pa/a").unread == ()


def test_all_of_a_long_statement_is_judged():
    """Whole licences stand in such fields, and what forbids may be their last sentence."""
    for words, unread in ((100, 0), (20_000, 1)):
        info, made = PngInfo(), BytesIO()
        info.add_text("Copyright", "A picture of a tree. " * words + "Not for AI training.")
        Image.new("RGB", (8, 8)).save(made, "PNG", pnginfo=info)
        rights = rights_of(made.getvalue())
        assert len(rights.unread) == unread
        assert names_terms(rights.statements[0].text) == (not unread)
