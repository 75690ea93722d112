"""Licences out of what people write, and what the words beside them take away."""

import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
from test_rights import ZERO

from cyclegan.datasets.audit import File
from cyclegan.datasets.licences import (
    allowed_list,
    is_allowed,
    is_noncommercial,
    joined,
    licence_in,
    licence_of,
    reserves_all,
    stated_licence,
)
from cyclegan.errors import BadInput
from cyclegan.metadata.rights import Rights, Statement

NAMES = {
    "CC-BY-4.0": "CC-BY-4.0", "cc0-1.0": "CC0-1.0", "apache-2.0": "Apache-2.0", "CC BY-SA 3.0": "CC-BY-SA-3.0",
    "Creative Commons Attribution 4.0 International": "CC-BY-4.0",
    "Creative Commons Attribution-NonCommercial-ShareAlike 3.0 Unported": "CC-BY-NC-SA-3.0",
    "Creative Commons Attribution-Share Alike 4.0": "CC-BY-SA-4.0",
    "http://creativecommons.org/licenses/by-nc-sa/3.0/de/deed.en": "CC-BY-NC-SA-3.0-DE",
    ZERO: "CC0-1.0", "CC0 1.0 Universal": "CC0-1.0", "Apache License, Version 2.0": "Apache-2.0",
    "https://creativecommons.org/publicdomain/mark/1.0/": "CC-PDM-1.0",
    "MIT or (cc0-1.0 and CC-BY-4.0)": "MIT OR (CC0-1.0 AND CC-BY-4.0)", "LicenseRef-mine": "LicenseRef-mine",
    # A licence without its version, words, and what only looks like one.
    "CC BY": None, "public domain": None, "not stated": None, "unknown": None, "free for research": None,
    "ImageNet terms of access: non-commercial research and education": None, "": None, "(" * 600: None,
    "http://creativecommons.org/licenses/by/9.9/": None, "version 1-2": None,
}  # fmt: skip


@pytest.mark.parametrize("words", NAMES)
def test_names_of_licences(words):
    assert licence_of(words) == NAMES[words]


def test_a_licence_within_a_notice():
    assert (
        licence_in("© 2020 Jo Zed. Licensed under CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/).")
        == "CC-BY-4.0"
    )
    assert licence_in("CC BY 4.0, or CC0 for the frame") == "CC-BY-4.0 AND CC0-1.0"
    for firm in ("Copyright CC0 Photos Inc.", "© 2020 CC0 Images", "CC0 Stock & Co Ltd, London"):
        assert licence_in(firm) is None and licence_in(f"{firm}, CC BY 4.0") == "CC-BY-4.0"
    assert licence_of("Zed") == "Zed" and licence_in("Zed") is None  # a licence, and somebody's name


def test_expressions_ask_for_all_and_for_one():
    either = "MIT OR (CC0-1.0 AND CC-BY-4.0)"
    assert not is_allowed(either, ["CC0-1.0"]) and is_allowed(either, ["CC0-1.0", "CC-BY-4.0"])
    assert is_allowed(either, ["MIT"]) and is_allowed("MIT OR CC0-1.0 AND CC-BY-4.0", ["MIT"])
    assert not is_allowed("CC0-1.0 AND CC-BY-4.0", ["CC-BY-4.0"])
    assert not is_allowed("GPL-2.0-only WITH Classpath-exception-2.0", ["GPL-2.0-only"])
    assert (
        joined(["CC0-1.0", "CC-BY-4.0 AND CC0-1.0", "MIT OR ISC"]) == "(MIT OR ISC) AND CC-BY-4.0 AND CC0-1.0"
    )
    assert allowed_list(["cc0-1.0", "CC0-1.0"]) == ("CC0-1.0",)


APACHE = """Licensed under the Apache License, Version 2.0 (the "License"); you may not use this file except in
compliance with the License. You may obtain a copy of the License at
http://www.apache.org/licenses/LICENSE-2.0
Unless required by applicable law or agreed to in writing, software distributed under the License is distributed
on an "AS IS" BASIS, WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the License for
the specific language governing permissions and limitations under the License."""
ORDINARY = {
    "CC0 1.0. This photo was not made by AI": "CC0-1.0", "CC BY 4.0, Jo. No AI used.": "CC-BY-4.0",
    "Creative Commons Attribution 4.0 International": "CC-BY-4.0", "CC BY 4.0": "CC-BY-4.0",
    "This work is licensed under a Creative Commons Attribution-NonCommercial 4.0 International License":
        "CC-BY-NC-4.0",
    "Creative Commons — Attribution-NonCommercial-NoDerivs 2.0 Generic — CC BY-NC-ND 2.0": "CC-BY-NC-ND-2.0",
    "Creative Commons Attribution-ShareAlike (http://creativecommons.org/licenses/by-sa/4.0/)": "CC-BY-SA-4.0",
    "CC-BY-NC, https://creativecommons.org/licenses/by-nc/3.0/": "CC-BY-NC-3.0", "CC-BY-3.0-DE": None,
    "© 2020 Jo, CC BY-SA 4.0": "CC-BY-SA-4.0", APACHE: "Apache-2.0", APACHE.partition(" (")[0]: "Apache-2.0",
    "Jo, CC BY-SA 4.0 <https://creativecommons.org/licenses/by-sa/4.0>, via Wikimedia Commons": "CC-BY-SA-4.0",
    "This work is licensed under CC BY 4.0. To view a copy of this license, visit "
    "https://creativecommons.org/licenses/by/4.0/": "CC-BY-4.0",
    "CC0 1.0. No Copyright: you can copy, modify and distribute the work, even for commercial purposes, all "
    "without asking permission.": "CC0-1.0",
    "CC0, no rights reserved, AI-generated": "CC0-1.0", "This work is not under copyright (CC0 1.0)": "CC0-1.0",
    "CC0, no attribution required, may be used without permission": "CC0-1.0",
    "CC BY 4.0, free for commercial and non-commercial use": "CC-BY-4.0",
    "CC BY 4.0, no changes were made": "CC-BY-4.0", "CC BY 4.0, use does not require permission": "CC-BY-4.0",
    "CC0 1.0; copyright does not apply": "CC0-1.0", "CC0, no need to ask for permission": "CC0-1.0", "CC BY-ND 4.0, no modifications": "CC-BY-ND-4.0",
    "CC\u00a0BY\n4.0": "CC-BY-4.0", "No train station, CC BY 4.0": "CC-BY-4.0",
    "© CC0 1.0 Universal": "CC0-1.0", "© 2020 CC0 Public Domain": "CC0-1.0", "CC0 Photo by Jo": "CC0-1.0",
    "Unsplash License": "LicenseRef-Unsplash", "PolyForm-Noncommercial-1.0.0": "PolyForm-Noncommercial-1.0.0",
    "Public domain": None, "No rights reserved": None, "Some rights reserved": None, "© 2020 Jo": None,
    "© Jo, all rights reserved": None, "No known copyright restrictions": None, "Not stated": None,
}  # fmt: skip


@pytest.mark.parametrize("notice", ORDINARY)
def test_ordinary_notices_take_nothing_away(notice):
    said = Statement("XMP dc:rights", "notice", notice)
    file = File(Path("a.png"), "", Rights((said,)))
    assert file.unclear is None
    if ORDINARY[notice] is not None:
        assert file.licence == ORDINARY[notice]
        assert File(Path("a.png"), "", Rights((replace(said, kind="licence"),))).unclear is None
    assert (file.refusal is not None) == ("all rights reserved" in notice)


@pytest.mark.parametrize(
    "words",
    [
        "© CC0 All Rights Reserved",
        "All rights\n reserved",
        "All\u00a0rights\u00a0reserved.",
        "All right reserved",
        "ALL RIGHTS ARE RESERVED",
    ],
)
@pytest.mark.parametrize("kind", ["licence", "notice", "terms"])
def test_all_rights_may_be_reserved_over_several_lines(kind, words):
    said = Statement("XMP dc:rights", kind, f"© Jo, {words}")
    assert File(Path("a.png"), "", Rights((said,))).refusal == said


def test_terms_bind_and_name_nobody():
    said = Statement("IPTC SpecialInstructions", "terms", "Not for AI training")
    file = File(Path("a.png"), "", Rights((said, Statement("XMP cc:license", "licence", ZERO))))
    assert file.unclear == said and file.holders == []
    assert File(Path("a.png"), "", Rights((replace(said, text="Call Jo"),))).unclear is None


def test_an_identifier_is_not_read_as_words():
    for text in ("LicenseRef-non-commercial", "CC-BY-NC-4.0"):
        assert (
            File(Path("a.png"), "", Rights((Statement("XMP cc:license", "licence", text),))).unclear is None
        )


@pytest.mark.parametrize(
    "words",
    [
        "CC BY 4.0 NC", "CC-BY-4.0-NC", "CC BY 4.0-NC-ND", "CC-BY-4.0-ND", "CC-BY-SA-4.0-NC", "CC BY 4.0 (NC)",
        "CC BY 4.0 International NC", "CC0-1.0-NC", "CC0 NC", "NC CC BY 4.0", "CC-BY-4.0-custom",
        "CC-BY-4.0 AND Proprietary", "Apache-2.0 AND NONE", "CC0-1.0 OR Custom", "CC-BY-4.0 and proprietary",
        "MIT, CC0-1.0", "CC0-1.0/MIT", "CC0-1.0 MIT", "CC BY 4.0, GPL", "CC0-1.0 AND unknown",
        "http://creativecommons.org/licenses/by/9.9/ and CC0-1.0", "CC BY 9.9, CC0",
        "CC0, https://creativecommons.org/licenses/nc-sa/1.0/",
        *(
            f"CC BY 4.0. {more}"
            for more in (
                "Do not train", "AI training is off limits", "All AI use reserved", "AI training rights reserved",
                "Commercial use requires a license", "Commercial use: licence required", "Proprietary", "For some, the rest is not stated",
            )
        ),
    ],
)  # fmt: skip
def test_what_is_more_than_the_licence_that_is_found_is_not_passed_over(words):
    """A condition behind the version, a part of an expression or a list that is not known, and words."""
    assert stated_licence(words) is None
    for kind in ("licence", "notice", "terms", "creator"):
        said = Statement("XMP dc:rights", kind, words)
        assert File(Path("a.png"), "", Rights((said,))).unclear == said


PLAIN = {
    "Licensed under CC BY 4.0 by Jo": "CC-BY-4.0", "CC BY 4.0, Zed": "CC-BY-4.0", "Jo/CC BY 4.0": "CC-BY-4.0",
    "© MIT, CC BY 4.0": "CC-BY-4.0", "Jo and Al, CC BY 4.0": "CC-BY-4.0", "Photo: Jo (CC BY 4.0)": "CC-BY-4.0",
    "CC BY 4.0 with attribution to Jo": "CC-BY-4.0", "CC BY 4.0, Raleigh, NC": "CC-BY-4.0",
    "CC-BY-4.0-International": "CC-BY-4.0", "CC BY 4.0, AI-generated, some rights reserved": "CC-BY-4.0",
    "CC0 1.0 AND CC BY 4.0": "CC-BY-4.0 AND CC0-1.0", "CC0-1.0, CC-BY-4.0": "CC-BY-4.0 AND CC0-1.0",
    "CC BY 4.0 International AND CC0": "CC-BY-4.0 AND CC0-1.0", "MIT License and CC0": "CC0-1.0 AND MIT",
    "CC BY 4.0; requires a link to the license": "CC-BY-4.0", "CC BY-SA-NC 4.0": "CC-BY-NC-SA-4.0",
    "CC BY 4.0, see https://creativecommons.org/licenses/": "CC-BY-4.0",
    "LicenseRef-mine, CC0-1.0": "CC0-1.0 AND LicenseRef-mine",
}  # fmt: skip


@pytest.mark.parametrize("words", PLAIN)
def test_a_plain_statement_stays_one(words):
    assert stated_licence(words) == licence_in(words) == PLAIN[words]


@pytest.mark.parametrize(
    "words",
    [
        "Tous droits réservés", "Tous droits reserves", "Todos los derechos reservados", "Alle Rechte vorbehalten",
        "Tutti i diritti riservati", "Todos os direitos reservados", "Alle rechten voorbehouden",
        "Wszelkie prawa zastrzezone", "Wszelkie prawa zastrzeżone", "Jo reserves all rights",
    ],
)  # fmt: skip
def test_all_rights_are_reserved_in_other_languages(words):
    for text in (f"© Jo. {words}.", words.upper(), unicodedata.normalize("NFD", words)):
        assert reserves_all(text) and stated_licence(f"CC BY 4.0, {text}") is None
    assert not reserves_all("CC BY 4.0. All other rights reserved.")


@pytest.mark.parametrize("field", ["EXIF Artist", "XMP photoshop:Credit", "IPTC By-line"])
def test_words_beside_a_name_bind_as_anywhere(field):
    def file(text):
        said = Statement(field, "creator", text)
        return said, File(Path("a.png"), "", Rights((Statement("XMP cc:license", "licence", ZERO), said)))

    said, reserved = file("Jo Zed, all rights reserved")
    assert reserved.refusal == said and reserved.holders == [said.text]
    said, limited = file("Jo Zed. Not for AI training")
    assert limited.unclear == said
    assert file("Jo (CC BY-NC 4.0)")[1].licence == "CC-BY-NC-4.0 AND CC0-1.0"
    for name in ("Jo Zed", "MIT", "Zed", "CC0 Stock", "Jo and Al, Ltd."):
        _, plain = file(name)
        assert (plain.refusal, plain.unclear, plain.licence) == (None, None, "CC0-1.0")
    assert File(Path("a.png"), "", Rights((Statement(field, "creator", "CC0 Stock"),))).licence is None


@pytest.mark.parametrize(
    "address, licence",
    [
        ("by-nd-nc/1.0/", "CC-BY-NC-ND-1.0"), ("by/2.0/uk/", "CC-BY-2.0"), ("by/4.0/en", "CC-BY-4.0"),
        ("by/3.0/igo/", "CC-BY-3.0-IGO"), ("by/4.0/deed.zh-hans", "CC-BY-4.0"), ("by-nc-foo/4.0/", None),
    ],
)  # fmt: skip
def test_addresses_of_creative_commons(address, licence):
    assert licence_of(f"https://creativecommons.org/licenses/{address}") == licence


@pytest.mark.parametrize(
    "word, hint",
    [
        ("CC-BY-4.0 AND CC0-1.0", "; commas stand between several: CC-BY-4.0,CC0-1.0"),
        ("CC0-1.0;MIT", "; commas stand between several: CC0-1.0,MIT"),
        ("CC BY 4.0 AND CC0", "; did you mean 'CC-BY-4.0,CC0-1.0'?"),
        ("apache", "; did you mean 'Apache-2.0'?"),
        ("apache-2", "; did you mean 'Apache-2.0'?"),
        ("Apache2", "; did you mean 'Apache-2.0'?"),
    ],
)
def test_what_is_no_identifier_gets_a_hint(word, hint):
    with pytest.raises(BadInput) as error:
        allowed_list([word])
    assert str(error.value).endswith(f"(https://spdx.org/licenses){hint}")


def test_empty_entries_of_a_list_are_passed_over():
    assert allowed_list(["CC0-1.0", " cc-by-4.0", ""]) == ("CC0-1.0", "CC-BY-4.0")
    with pytest.raises(BadInput, match="name one licence or more"):
        allowed_list(["", " "])


def test_what_is_not_for_commerce():
    for licence in (
        "CC-BY-NC-4.0",
        "CC0-1.0 AND CC-BY-NC-SA-3.0",
        "terms of ImageNet: non-commercial research",
    ):
        assert is_noncommercial(licence)
    for licence in (
        "CC-BY-4.0",
        "MIT OR CC-BY-NC-4.0",
        "unknown",
        "free for commercial and non-commercial use",
    ):
        assert not is_noncommercial(licence)


def test_words_that_begin_as_an_expression_are_none():
    assert not is_allowed("CC0-1.0 for some, the rest not stated", ["CC0-1.0"])
