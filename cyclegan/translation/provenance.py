"""The label of a translation: who made this picture, with what, and on whose pictures that rests.

It is an XMP packet (ISO 16684-1) with IPTC's ``DigitalSourceType``. The IPTC NewsCodes vocabulary
(https://cv.iptc.org/newscodes/digitalsourcetype/, as of 2024-10-23) defines the two terms in question:

- trainedAlgorithmicMedia, "Created using Generative AI": "Digital media created algorithmically using
  an Artificial Intelligence model trained on captured content";
- compositeWithTrainedAlgorithmicMedia, "Edited using Generative AI": "Augmentation, correction or
  enhancement using a Generative AI model, such as with inpainting or outpainting operations".

A translation is the first: the generator computes every pixel, and none of the input's remains, as
some would after inpainting. C2PA's guidance says the same of any generative model's output ("For a
generative model this will be trainedAlgorithmicMedia", AI/ML guidance 2.2 §9). The input is not hidden
by that: its digest stands beside the term.
"""

import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cyclegan import __version__
from cyclegan.errors import BadInput
from cyclegan.metadata import Metadata

if TYPE_CHECKING:
    from cyclegan.artifacts import GeneratorConfig

DIGITAL_SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
OURS = "urn:x-cyclegan:label:1#"  # a name, not an address: nothing is served there
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_IPTC = "http://iptc.org/std/Iptc4xmpExt/2008-02-29/"
_XMP = "http://ns.adobe.com/xap/1.0/"
_META = "adobe:ns:meta/"
_PREFIXES = {"x": _META, "rdf": _RDF, "Iptc4xmpExt": _IPTC, "xmp": _XMP, "cyclegan": OURS}
_HEAD = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_TAIL = '\n<?xpacket end="w"?>'
_MOST_TEXT = 20_000  # a JPEG segment holds 64 KiB
_MOST_NAMES = 4_000  # characters of those whom the pictures of a side are by; a data set may have thousands
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0 §2.2


@dataclass(frozen=True)
class Label:
    """What all translations by one generator have in common.

    Args:
        generator_sha256: of model.safetensors; None for a network that came from no file.
        config_sha256: of config.json, likewise.
        licences: of the training images, by domain ("A", "B").
        card_sha256: of the domain's data card.
        trained_with: the version of cyclegan that trained the generator.
        system: what made it, in words, where that is no generator between domains.
        style_sha256: of the pictures whose style was taken over, with commas between.
        attribution: whom the training images are by, by domain.
    """

    generator_sha256: str | None
    config_sha256: str | None
    domain: str | None
    direction: str | None
    source: str | None
    target: str | None
    licences: Mapping[str, str]
    card_sha256: str | None
    trained_with: str | None
    attribution: Mapping[str, str] = field(default_factory=dict)
    system: str | None = None
    style_sha256: str | None = None

    @classmethod
    def of(
        cls, config: "GeneratorConfig", generator_sha256: str | None, config_sha256: str | None = None
    ) -> "Label":
        """The label of a generator.

        Raises:
            BadInput: its texts are too long to be written into each picture.
        """
        label = cls(
            generator_sha256,
            config_sha256,
            config.domain,
            config.direction,
            config.source,
            config.target,
            dict(config.licences),
            config.card_sha256,
            config.cyclegan_version,
            attribution={side: _named(names) for side, names in config.attribution.items()},
        )
        size = len(json.dumps(label.record()))
        if size > _MOST_TEXT:
            raise BadInput(
                f"config.json: its names, licences and attributions have {size:,} characters and go into each"
                f" picture; shorten them to {_MOST_TEXT:,}"
            )
        return label

    @classmethod
    def of_stylization(
        cls, system: str, weights_sha256: str, licences: Mapping[str, str], style_sha256: str
    ) -> "Label":
        """The label of what was given the look of other pictures.

        Args:
            system: the method, in words.
            weights_sha256: of the file that its network's weights come from.
            licences: of those weights, and what else it rests on.
        """
        nobody = dict.fromkeys(("config_sha256", "domain", "direction", "source", "target", "card_sha256"))
        return cls(
            generator_sha256=weights_sha256,
            licences=dict(licences),
            trained_with=None,
            system=system,
            style_sha256=style_sha256,
            **nobody,
        )

    def record(self) -> dict[str, Any]:
        """The label as plain values, as a line of manifest.jsonl or a C2PA assertion holds them."""
        record = {
            "digital_source_type": DIGITAL_SOURCE_TYPE,
            "generator_sha256": self.generator_sha256,
            "config_sha256": self.config_sha256,
            "domain": self.domain,
            "direction": self.direction,
            "source": self.source,
            "target": self.target,
            "licences": dict(self.licences),
            "attribution": dict(self.attribution),
            "card_sha256": self.card_sha256,
            "trained_with": self.trained_with and f"cyclegan {self.trained_with}",
            "cyclegan_version": __version__,
        }
        if self.system is not None:
            record |= {"system": self.system, "style_sha256": self.style_sha256}
        return record

    def facts(self, source_sha256: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """``record`` and what concerns one picture: its input's digest, and how it was translated."""
        return {**self.record(), "input_sha256": source_sha256, "settings": dict(settings)}

    def stamp(self, metadata: Metadata, source_sha256: str, settings: Mapping[str, Any]) -> Metadata:
        """Metadata with the label as XMP, in place of the input's own.

        The input's XMP is not carried over: it describes the original (its source type, edits,
        identifiers), and would say false things of this picture.
        """
        return replace(metadata, xmp=_packet(self.facts(source_sha256, settings)))


def system_of(facts: Mapping[str, Any]) -> str:
    """What made a picture, in words."""
    return facts.get("system") or f"CycleGAN generator, {facts['source']} to {facts['target']}"


def _named(names: str) -> str:
    """As many names as go into each picture; the others stay in the generator's config.json."""
    if len(names) <= _MOST_NAMES:
        return names
    return names[:_MOST_NAMES].rpartition("; ")[0] + "; and others, whom the generator's config.json names"


def _packet(facts: Mapping[str, Any]) -> bytes:
    for prefix, uri in _PREFIXES.items():
        ET.register_namespace(prefix, uri)
    meta = ET.Element(f"{{{_META}}}xmpmeta")
    about = ET.SubElement(ET.SubElement(meta, f"{{{_RDF}}}RDF"), f"{{{_RDF}}}Description")
    about.set(f"{{{_RDF}}}about", "")

    def add(space: str, name: str, value: str | None) -> None:
        if value is not None:
            ET.SubElement(about, f"{{{space}}}{name}").text = _NOT_XML.sub("\ufffd", value)

    digest = facts["generator_sha256"]
    add(_IPTC, "DigitalSourceType", facts["digital_source_type"])
    # IPTC Photo Metadata 2025.1 names the system as a person would, and its version.
    add(_IPTC, "AISystemUsed", system_of(facts))
    add(_IPTC, "AISystemVersionUsed", digest and f"sha256:{digest}")
    add(_XMP, "CreatorTool", f"cyclegan {facts['cyclegan_version']}")
    for name, key in _TEXTS.items():
        add(OURS, name, facts.get(key))
    for name, key in _BAGS.items():
        bag = ET.SubElement(ET.SubElement(about, f"{{{OURS}}}{name}"), f"{{{_RDF}}}Bag")
        for side, words in sorted(facts[key].items()):
            ET.SubElement(bag, f"{{{_RDF}}}li").text = _NOT_XML.sub("\ufffd", f"{side}: {words}")
    add(OURS, "Settings", json.dumps(facts["settings"], sort_keys=True))
    return (_HEAD + ET.tostring(meta, "unicode") + _TAIL).encode()


# Names in our namespace, and the facts that they hold.
_TEXTS = {
    "GeneratorSHA256": "generator_sha256",
    "ConfigSHA256": "config_sha256",
    "Domain": "domain",
    "Direction": "direction",
    "Source": "source",
    "Target": "target",
    "DataCardSHA256": "card_sha256",
    "TrainedWith": "trained_with",
    "Version": "cyclegan_version",
    "InputSHA256": "input_sha256",
    "System": "system",
    "StyleSHA256": "style_sha256",
}
_BAGS = {"TrainingLicences": "licences", "TrainingAttribution": "attribution"}  # "A: ..." and "B: ..."


def read_label(xmp: bytes | None) -> dict[str, Any] | None:
    """The facts of a label (``Label.facts``), or None where there is none; only what is there.

    A packet by another program gives its ``digital_source_type`` alone.

    Raises:
        ValueError: the packet is not what XMP is.
    """
    if not xmp:
        return None
    if b"<!DOCTYPE" in xmp or b"<!ENTITY" in xmp:
        raise ValueError("it declares entities, which XMP does not have")
    try:
        root = ET.fromstring(xmp.strip(b"\0 \r\n\t"))
    except ET.ParseError as error:
        raise ValueError(str(error)) from error
    facts: dict[str, Any] = {}
    for about in root.iter(f"{{{_RDF}}}Description"):
        # A property may stand as an element or, if it is plain text, as an attribute.
        texts = {**about.attrib, **{child.tag: child.text or "" for child in about}}
        for name, key in _TEXTS.items():
            if f"{{{OURS}}}{name}" in texts:
                facts[key] = texts[f"{{{OURS}}}{name}"]
        if kind := texts.get(f"{{{_IPTC}}}DigitalSourceType"):
            facts["digital_source_type"] = kind
        for name, key in _BAGS.items():
            bag = about.find(f"{{{OURS}}}{name}/{{{_RDF}}}Bag")
            if bag is not None:
                facts[key] = dict((item.text or "").split(": ", 1) for item in bag)
        if settings := texts.get(f"{{{OURS}}}Settings"):
            facts["settings"] = _object(json.loads(settings))
    return facts or None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("its settings are no JSON object")
    return value
