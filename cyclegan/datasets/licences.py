"""Licences by SPDX's identifiers: out of what people write, and whether a list of allowed ones has them."""

import difflib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression

from cyclegan.errors import BadInput

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
_CC_STRANGE = re.compile(r"creativecommons\.org/(?:licen[cs]es|publicdomain)/\w", re.IGNORECASE)
_OTHERS = {
    r"\bCC[ -]?0\b(?:[ -]v?1\.0\b)?|\bCC[ -]Zero\b": "CC0-1.0",
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
# Of texts without their accents
_RESERVED = re.compile(
    r"\ball rights? (?:(?:are|is|hereby|strictly) ){0,3}reserved\b|\breserv(?:e|es|ing) all (?:the )?rights\b"
    r"|\balle rechte (?:sind )?vorbehalten\b|\balle rechten voorbehouden\b|\btous (?:les )?droits reserves\b"
    r"|\btodos los derechos (?:estan )?reservados\b|\btodos os direitos (?:sao )?reservados\b"
    r"|\btutti i diritti (?:sono )?riservati\b|\bwszelkie prawa zastrzezone\b|\bвсе права защищены\b"
    r"|\balle rettigheder forbeholdes\b|\balla rattigheter forbehallna\b|版权所有|版權所有|無断転載",
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
    r"|\bBY[ -]NC\b|\bNC[ -](?:BY|ND|SA|CC)\b|\bNC[ -]\0|\b(?:no|not for) commercial\b",
    # "No changes were made" is what CC BY 4.0 §3(a)(1)(B) asks for, and no limit.
    "ND": r"\bno[- ]?deriv|\bBY(?:[ -]NC)?[ -]ND\b|\bND[ -](?:BY|NC|CC)\b|\bND[ -]\0"
    r"|\bno (?:modif\w+|changes|alterations?|adaptations?|edits|editing|remix\w*)\b"
    r"(?! (?:(?:were|was|have been|has been|are) )?(?:made|done)\b)"
    r"|(?:\bnot|\bnever|cannot|n['’]t) (?:(?:modify|alter|adapt|remix|edit|crop)\b"
    r"|be (?:modified|altered|adapted|remixed|edited|cropped)\b)",
    "SA": r"\bshare[ -]?alike\b|\bBY(?:[ -]NC)?[ -]SA\b|\bSA[ -](?:BY|NC|CC)\b|\bSA[ -]\0",
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
            r"\bprohibited\b|\bforbidden\b(?! city)|\bnot (?:allowed|permitted|licen[cs]ed|ok(?:ay)?)\b",
            r"\boff[ -]limits\b|\bproprietary\b|\bfor some\b|\bthe (?:rest|others)\b",
            r"\b(?:commercial|separate|paid|extra) licen[cs]e\b",
            r"\b(?:not|never|cannot|n['’]t)(?: to)? train\b(?! stations?\b)",
            r"\b(?:require|need)s? (?:(?:an?|the|another|separate|commercial|paid|extra|prior|written) ){0,3}"
            r"licen[cs]\w+\b|(?<!\bno )\blicen[cs]e (?:is )?(?:required|needed)\b",
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
            r"\b(?:mining|TDM|training|machine learning|AI(?![ -](?:made|generated|created)\b))\b[^.;:]{0,60}"
            r"(?<!\bno rights )(?<!\bsome rights )\b(?:reserved|vorbehalten)\b",
            rf"{_NO}[^.;:,\0]{{0,40}}\0",  # "not under CC BY 4.0": _beside() has NUL for what is named
        )
    ),
    re.IGNORECASE,
)
# An identifier alone among other words: "image: CC-BY-4.0, by me"
_IDENTIFIER = re.compile(
    r"(?<![\w.-])(?:(?:[A-Za-z][\w.+]*-)+\d+(?:\.\d+)*(?:-[A-Za-z-]+)?|LicenseRef(?:-\w+)+)(?![\w-])"
)
# What follows NUL, which stands for a licence's name, as a part of it that changes nothing
_FULL_NAME = re.compile(
    r"\0(?:[ -](?:International|Unported|Generic|Universal|Intl?\b\.?|Public Domain|Licen[cs]e))+\b",
    re.IGNORECASE,
)
# "CC BY 4.0 NC", "CC-BY-4.0-ND", "CC-BY-4.0-custom"; but "CC-BY-3.0-DE", "a CC0-licensed picture"
_MORE = re.compile(
    r"\0[\s_/,;:(\[+&-]*(?:NC|ND|SA)\b|\0-(?!(?:licen[cs]ed|legalcode|deed|[a-z]{2,3})\b)[a-z]", re.IGNORECASE
)
# "CC0-1.0 AND Proprietary", "Custom OR CC0-1.0": one side is a licence that is known
_HALF = re.compile(r"\0[/)\]]*\s+(?:AND|OR|WITH)\s+(?![(\[]*\0)|(?<![\0/)\]])\s+(?:AND|OR)\s+[(\[]*\0")
_PAIR = re.compile(r"[(\[]*[\w.:-]+ (?:and|or) [(\[]*\0[)\]/]*|\0[)\]/]* (?:and|or) [\w.:-]+[)\]]*")
# As people list them: "MIT, CC0-1.0"; a name without a version is that of a family.
_SEPARATOR = re.compile(r"\s*[,;|/+&()\[\]]+\s*|\s+(?:and|or)\s+", re.IGNORECASE)
_FAMILY = re.compile(
    r"(?:[AL]?GPL|GFDL|FDL|BSD|OFL|MPL|EPL|EUPL)(?:[ -]?v?\d[\d.]*)?|none|noassertion|custom|commercial",
    re.IGNORECASE,
)


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
    licence, for versions differ in what they allow; CC0 and the public domain mark have only one. Nor is one
    beside another that is not known.
    """
    text = _plain(text)
    return None if _names_more(text) else _named(text)


def stated_licence(text: str) -> str | None:
    """The licence that somebody states, if that is all that the text says of what may be done."""
    if expression(text.strip()) is None and (names_terms(text) or reserves_all(text)):
        return None
    return licence_of(text)


def is_noncommercial(text: str) -> bool:
    """Whether a licence, or words in place of one, leave commercial use out."""
    known = expression(text)
    if known is None:
        return bool(re.search(_CONDITIONS["NC"], _plain(text), re.IGNORECASE))
    words = re.findall(r"[^\s()]+", known)
    free = [word for word in words if not re.search(r"-NC-|noncommercial", word, re.IGNORECASE)]
    return len(free) < len(words) and not is_allowed(known, free)


def _plain(text: str) -> str:
    """One space for white space of any kind, and no names of firms that look like those of licences."""
    return _FIRM.sub(" ", " ".join(text.replace("\0", " ").split()))


def _named(text: str) -> str | None:
    return joined(name for name in _names_in(text) if name) or None


def _names_in(text: str) -> Iterator[str | None]:
    """Those that a text has, in SPDX's spelling; None for each of Creative Commons that there is not."""
    for kind, version, place, domain in _CC_URL.findall(text):
        if domain:
            yield {"zero": "CC0-1.0", "mark": "CC-PDM-1.0"}[domain.lower()]
        else:
            yield _creative_commons(kind.rstrip("-").upper().split("-"), version, place)
    bare = _CC_URL.sub(" ", text)
    if _CC_STRANGE.search(bare):
        yield None
    for kind, version in _CC_NAME.findall(bare):
        parts = re.sub(r"\b(non|no|share)[- ](?=commercial|deriv|alike)", r"\1", kind.lower())
        yield _creative_commons(
            [_PARTS.get(part, part.upper()) for part in re.split(r"[ -]+", parts)], version
        )
    for pattern, name in _OTHERS.items():
        if re.search(pattern, bare, re.IGNORECASE):
            yield name
    yield from filter(None, map(expression, _IDENTIFIER.findall(bare)))


def _creative_commons(parts: Sequence[str], version: str, place: str = "") -> str | None:
    """By its conditions in any order: version 1.0 has ND before NC, in its name and address."""
    plain = "-".join(("CC", *sorted(set(parts)), version))
    # From 4.0 on there are no countries' own, and it is a language. Of those before SPDX has not all.
    own = expression(f"{plain}-{place}") if place and version < "4.0" else None
    return own or expression(plain)


def _names_more(text: str) -> bool:
    """Whether a text, which is plain, names a licence that is not known, or part of one, beside others."""
    if None in _names_in(text):
        return True
    rest = _FULL_NAME.sub("\0", _beside(text))
    if "\0" not in rest:
        return False
    if _MORE.search(rest) or _HALF.search(rest):
        return True
    listed = [part.strip(" .") for part in _SEPARATOR.split(rest)]
    words = [word for word in re.split(r"[\s,;|/+&()]+", rest.strip(" .")) if word != "\0"]
    alone = bool(words) and all(map(_like_a_licence, words))  # "MIT CC0-1.0"
    return alone or any(map(_like_a_licence, listed)) or _PAIR.fullmatch(rest) is not None


def _like_a_licence(word: str) -> bool:
    """Whether something that stands alone means a licence; of SPDX's some are names too, such as Zed."""
    if _FAMILY.fullmatch(word):
        return True
    return len(word) <= 40 and not re.fullmatch(r"[A-Z]?[a-z]+", word) and expression(word) is not None


def names_terms(text: str) -> bool:
    """Whether a text has more to say of what may be done than the licences that are found in it.

    It may speak of one that is not known, or forbid or limit something beside one that is: "CC BY 4.0, not
    for AI training".
    """
    text = _plain(text)
    licence = _named(text)
    if _names_more(text) or (licence is None and _LICENSED.search(text)):
        return True
    rest, known = _beside(text), (licence or "").split("-")
    limits = (pattern for part, pattern in _CONDITIONS.items() if part not in known)
    return bool(_TERMS.search(rest)) or any(re.search(limit, rest, re.IGNORECASE) for limit in limits)


def _beside(text: str) -> str:
    """A text in which NUL stands for each name and address of a licence."""
    for pattern in (_CC_URL, _IDENTIFIER, _CC_NAME, _OTHER):
        # "CC-BY-4.0-NC" has a name in it, and is none.
        known = expression if pattern is _IDENTIFIER else _named
        text = pattern.sub(lambda found, known=known: "\0" if known(found[0]) else found[0], text)
    return re.sub(r"\bhttps?://(?:www\.)?(?=\0)", "", text)  # whose colon would end a sentence


def reserves_all(text: str) -> bool:
    """Whether a notice says that nothing is allowed."""
    letters = unicodedata.normalize("NFKD", _plain(text))
    return bool(_RESERVED.search("".join(letter for letter in letters if not unicodedata.combining(letter))))


def allowed_list(words: Iterable[str]) -> tuple[str, ...]:
    """Licences that a user allows, spelled as SPDX does.

    Raises:
        BadInput: one is no SPDX identifier.
    """
    allowed = []
    for word in filter(None, map(str.strip, words)):
        known = expression(word)
        if known is None or " " in known.replace(" WITH ", "") or "(" in known:
            raise BadInput(
                f"require_license: {word!r} is no SPDX identifier (https://spdx.org/licenses){_meant(word)}"
            )
        allowed.append(known)
    if not allowed:
        raise BadInput("require_license: name one licence or more, as CC0-1.0,CC-BY-4.0")
    return tuple(dict.fromkeys(allowed))


def _meant(word: str) -> str:
    """A ready clause with what a user may have meant by what is no identifier, or nothing."""
    parts = [
        part for part in re.split(r"[\s;|/+&()]+(?:(?:AND|OR)\b)?[\s(]*", word, flags=re.IGNORECASE) if part
    ]
    several = [expression(part) for part in parts]
    if len(several) > 1 and None not in several:
        return f"; commas stand between several: {','.join(filter(None, several))}"
    names = {name.casefold(): name for name in _COMMON}
    near = difflib.get_close_matches(re.sub(r"[\s_]+", "-", word.casefold()), names, n=1)
    guess = licence_in(word) or (names[near[0]] if near else None)
    return f"; did you mean {guess.replace(' AND ', ',')!r}?" if guess else ""


_COMMON = ("CC0-1.0", "CC-PDM-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "CC-BY-2.0", "Apache-2.0", "MIT")


def is_allowed(licence: str, allowed: Sequence[str]) -> bool:
    """Whether an SPDX expression can be fulfilled by the allowed ones: of OR one, of AND all."""
    words = re.findall(r"[()]|[^\s()]+", licence)
    return _any_of(words, frozenset(allowed)) and not words  # else it is no expression


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
