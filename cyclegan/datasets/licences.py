"""Licences by SPDX's identifiers: out of what people write, and whether a list of allowed ones has them."""

import re
from collections.abc import Iterable, Iterator, Sequence

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from cyclegan.errors import BadInput, nearest

UNKNOWN = "unknown"  # a licence that is not known
_LONGEST = 500  # characters of an expression; packaging's parser is not for more
_CC_URL = re.compile(
    r"creativecommons\.org/(?:licenses/(by[a-z-]*)/(\d\.\d)(?:/([a-z]{2,3})(?![a-z]))?"
    r"|publicdomain/(zero|mark)/1\.0)",
    re.IGNORECASE,
)
_CC_NAME = re.compile(
    r"\b(?:CC[ -]|Creative\s+Commons\s+)"
    r"((?:BY|Attribution)(?:[ -](?:NC|ND|SA|Non-?Commercial|No-?Deriv(?:ative)?s|Share[ -]?Alike))*)"
    r"\s*[ -]?(?:v(?:ersion)?\s*)?(\d\.\d)(?=[^\d.]|\.?$|\.\s)",
    re.IGNORECASE,
)
_OTHERS = {
    r"\bCC[ -]?0\b|\bCC[ -]Zero\b": "CC0-1.0",
    r"\bpublic domain mark\b": "CC-PDM-1.0",
    r"\bApache(?: Software)? Licen[cs]e,?(?: v(?:ersion)?)? ?2(?:\.0)?\b": "Apache-2.0",
    r"apache\.org/licenses/LICENSE-2\.0": "Apache-2.0",
    r"\bMIT Licen[cs]e\b|opensource\.org/licenses?/mit\b": "MIT",
    r"\bODbL\b|\bOpen Database Licen[cs]e\b": "ODbL-1.0",
    r"\bUnsplash Licen[cs]e\b": "LicenseRef-Unsplash",
    r"\bPexels Licen[cs]e\b": "LicenseRef-Pexels",
}  # fmt: skip
_OTHER = re.compile("|".join(_OTHERS), re.IGNORECASE)
# "Copyright CC0 Photos Inc.", "© 2020 CC0 Images": whose name begins so, not what the picture is under
_FIRM = re.compile(
    r"\bCC[ -]?0(?=(?: (?:[A-Z][\w'’-]*|&|and)){0,4},? (?:Inc|Incorporated|Ltd|Limited|LLC|LLP|GmbH|Corp)\b)"
    r"|(?:©|\([cC]\)|\b[Cc]opyright|\bCOPYRIGHT) ?(?:\d{4}(?:[-–]\d{2,4})? )?(?:[Bb]y )?CC[ -]?0"
    r"(?= (?!Universal|Public|Licen[cs]e|Creative|Dedication|Waiver|No\b)[A-Z][a-z]+)"
)
_PARTS = {
    "attribution": "BY", "noncommercial": "NC", "noderivatives": "ND", "noderivs": "ND", "sharealike": "SA",
}  # fmt: skip
_RESERVED = re.compile(
    r"\ball rights? (?:(?:are|is|hereby|strictly) ){0,3}reserved\b"
    r"|\balle rechte vorbehalten\b|\btous droits réservés\b",
    re.IGNORECASE,
)
# Speaks of a licence; which one, the rest of the text may say.
_LICENSED = re.compile(
    r"\bcreative commons\b|\blicen[cs]ed (?:under|for|to)\b|\bnon-?\s?commercial\b", re.IGNORECASE
)
# Creative Commons' conditions in words: nothing new beside a licence that has them, a limit beside any other.
_CONDITIONS = {
    "BY": r"\bCC[ -]?BY\b|\bcreative\s+commons\s+attribution\b",
    "NC": r"(?<!commercial and )(?<!commercial or )\bnon-?\s?commercial(?! (?:and|or) commercial\b)"
    r"|\bBY[ -]NC\b|\b(?:no|not for) commercial\b",
    # "No changes were made" is what CC BY 4.0 §3(a)(1)(B) asks for, and no limit.
    "ND": r"\bno[- ]?deriv|\bBY(?:[ -]NC)?[ -]ND\b"
    r"|\bno (?:modif\w+|changes|alterations?|adaptations?|edits|editing|remix\w*)\b"
    r"(?! (?:(?:were|was|have been|has been|are) )?(?:made|done)\b)"
    r"|(?:\bnot|\bnever|cannot|n['’]t) (?:(?:modify|alter|adapt|remix|edit|crop)\b"
    r"|be (?:modified|altered|adapted|remixed|edited|cropped)\b)",
    "SA": r"\bshare[ -]?alike\b|\bBY(?:[ -]NC)?[ -]SA\b",
}
# "No copyright, AI-generated" and "no attribution required, use it without permission" take nothing away.
_NO = (
    r"\b(?:no|not|never|cannot|[a-z]+n['’]t)\b(?! (?:(?:made|generated|created) (?:by|with|using)\b"
    r"|AI (?:was |has been )?(?:used|involved)"
    r"|(?:known |subject to |in |under |protected by )?(?:copyright|restrictions)"
    r"|rights reserved|(?:(?:attribution|credit|permission) (?:is )?)?(?:need|required|necessary)))"
)
# Forbids or limits, whatever licence is named beside it. Each reaches no further than its sentence.
_TERMS = re.compile(
    "|".join(
        (
            r"\beditorial\b|\bpersonal use\b|\bnot for\b|\brights[- ]managed\b|\bunauthori[sz]ed\b",
            r"\bprohibited\b|\bforbidden\b(?! city)|\bnot (?:allowed|permitted|licen[cs]ed)\b",
            r"\b(?:use|usage|purposes?|research)\s+only\b(?! (?:under|with)\b)|\bopt(?:s|ed)?[ -]out\b",
            r"(?<!\bno )\bpermission (?:is |must be )?(?:required|needed)\b",
            r"(?<!\bno )(?<!\bnot )(?<!n['’]t )\b(?:require|need)s? (?:(?!no\b)[\w'’]+ ){0,4}"
            r"(?:permission|consent|authori[sz]ation)\b",
            r"(?<!\bcopyright does )(?<!\brestrictions do )(?:\bnot|n['’]t) apply\b",
            r"\b(?:excluded|excepted|exempt(?:ed)?) from\b",
            r"\bonly with\b[^.;:]{0,60}\b(?:permission|consent)\b",
            rf"{_NO}[^.;:]{{0,100}}\bwithout\b[^.;:]{{0,60}}\b(?:permission|consent|authori[sz]ation)\b",
            rf"{_NO}[^.;:]{{0,100}}\b(?:AI\b(?![ -](?:made|generated|created)\b)|machine learning\b"
            r"|training\b|trained on\b|generative\b|(?:data|text) mining\b|TDM\b|scraping\b|deep learning\b"
            r"|train (?:on|with|any|an?|the|your|AI|models?|machines?|networks?|neural|deep|algorithms?)\b"
            r"|neural net\w*|(?-i:MLs?|LLMs?)\b|data ?sets?\b|language models?\b)|\bno-?AI\b",
            r"\b(?:except|exclud\w+)\b[^.;:]{0,60}\b(?:AI|machine learning|training|mining)\b",
            r"\b(?:AI|machine learning|training|mining)\b[^.;:]{0,40}\bexcluded\b",
            r"\b(?:mining|TDM|AI training)\b[^.;:]{0,60}\b(?:reserved|vorbehalten)\b",
            rf"{_NO}[^.;:,\0]{{0,40}}\0",  # "not under CC BY 4.0": _beside() has NUL for what is named
        )
    ),
    re.IGNORECASE,
)
# An identifier alone among other words: "image: CC-BY-4.0, by me"
_IDENTIFIER = re.compile(r"(?<![\w.-])(?:[A-Za-z][\w.+]*-)+\d+(?:\.\d+)*(?:-[A-Za-z-]+)?(?![\w-])")


def expression(text: str) -> str | None:
    """An SPDX expression, spelled as SPDX does, or None if the text is none."""
    if len(text) > _LONGEST:
        return None
    try:
        return str(canonicalize_license_expression(text))
    except (InvalidLicenseExpression, ValueError, RecursionError):
        return None


def licence_of(text: str) -> str | None:
    """The licence that a field for licences names: an expression, an address or a name.

    Returns:
        An SPDX expression; None if the text names none.
    """
    return expression(text.strip()) or licence_in(text)


def licence_in(text: str) -> str | None:
    """The licence named somewhere in a text, such as a notice of copyright.

    Several are joined by AND, for the stricter reading is the safe one. A name without its version is no
    licence, for versions differ in what they allow; CC0 and the public domain mark have only one.
    """
    return joined(name for name in _names_in(text) if name) or None


def _plain(text: str) -> str:
    """One space for white space of any kind, and no names of firms that look like those of licences."""
    return _FIRM.sub(" ", " ".join(text.replace("\0", " ").split()))


def _names_in(text: str) -> Iterator[str | None]:
    text = _plain(text)
    for kind, version, place, domain in _CC_URL.findall(text):
        if domain:
            yield {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}[domain.lower()]
        else:
            yield expression("-".join(filter(None, ("CC", kind.rstrip("-"), version, place))))
    bare = _CC_URL.sub(" ", text)
    for kind, version in _CC_NAME.findall(bare):
        parts = re.sub(r"\b(non|no|share)[- ](?=commercial|deriv|alike)", r"\1", kind.lower())
        names = [_PARTS.get(part, part.upper()) for part in re.split(r"[ -]+", parts)]
        yield expression("-".join(["CC", *names, version]))
    for pattern, name in _OTHERS.items():
        if re.search(pattern, bare, re.IGNORECASE):
            yield name
    for word in _IDENTIFIER.findall(bare):
        yield expression(word)


def names_terms(text: str) -> bool:
    """Whether a text has more to say of what may be done than the licences that are found in it.

    It may speak of one that is not known, or forbid or limit something beside one that is: "CC BY 4.0, not
    for AI training".
    """
    text = _plain(text)
    licence = licence_in(text)
    if licence is None and _LICENSED.search(text):
        return True
    rest, known = _beside(text), (licence or "").split("-")
    limits = (pattern for part, pattern in _CONDITIONS.items() if part not in known)
    return bool(_TERMS.search(rest)) or any(re.search(limit, rest, re.IGNORECASE) for limit in limits)


def _beside(text: str) -> str:
    """A text in which NUL stands for each name and address of a licence."""
    for pattern in (_CC_URL, _IDENTIFIER, _CC_NAME, _OTHER):
        text = pattern.sub(lambda found: "\0" if licence_in(found[0]) else found[0], text)
    return re.sub(r"\bhttps?://(?:www\.)?(?=\0)", "", text)  # whose colon would end a sentence


def reserves_all(text: str) -> bool:
    """Whether a notice says that nothing is allowed."""
    return bool(_RESERVED.search(_plain(text)))


def allowed_list(words: Iterable[str]) -> tuple[str, ...]:
    """Licences that a user allows, spelled as SPDX does.

    Raises:
        BadInput: one is no SPDX identifier.
    """
    allowed = []
    for word in words:
        known = expression(word)
        if known is None or " " in known.replace(" WITH ", "") or "(" in known:
            guess = licence_in(word)
            hint = f"; did you mean {guess!r}?" if guess else nearest(word.upper(), _COMMON)
            raise BadInput(
                f"require_license: {word!r} is no SPDX identifier (https://spdx.org/licenses){hint}"
            )
        allowed.append(known)
    if not allowed:
        raise BadInput("require_license: name one licence or more, as CC0-1.0,CC-BY-4.0")
    return tuple(dict.fromkeys(allowed))


_COMMON = ("CC0-1.0", "CC-PDM-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-2.0", "Apache-2.0", "MIT")


def is_allowed(licence: str, allowed: Sequence[str]) -> bool:
    """Whether an SPDX expression can be fulfilled by the allowed ones: of OR one, of AND all."""
    words = re.findall(r"[()]|[^\s()]+", licence)
    return _any_of(words, frozenset(allowed))


def _any_of(words: list[str], allowed: frozenset[str]) -> bool:
    """``words`` up to a closing bracket, which stays; AND binds before OR (SPDX 3.0 annex B)."""
    results = [_all_of(words, allowed)]
    while words and words[0] == "OR":
        words.pop(0)
        results.append(_all_of(words, allowed))
    return any(results)


def _all_of(words: list[str], allowed: frozenset[str]) -> bool:
    results = [_one(words, allowed)]
    while words and words[0] == "AND":
        words.pop(0)
        results.append(_one(words, allowed))
    return all(results)


def _one(words: list[str], allowed: frozenset[str]) -> bool:
    word = words.pop(0)
    if word == "(":
        inner = _any_of(words, allowed)
        words.pop(0)  # the closing bracket
        return inner
    if words and words[0] == "WITH":
        words.pop(0)
        word = f"{word} WITH {words.pop(0)}"
    return word in allowed


def joined(licences: Iterable[str]) -> str:
    """Several expressions that all hold, as one; each licence once. Of none, nothing."""
    given = list(dict.fromkeys(licences))
    if len(given) < 2:
        return "".join(given)
    parts: set[str] = set()
    for licence in given:
        parts |= {f"({licence})"} if "(" in licence or " OR " in licence else set(licence.split(" AND "))
    return " AND ".join(sorted(parts))
