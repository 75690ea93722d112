"""Labels: read by Exiv2 and ExifTool as well as by ourselves, and saying nothing that is not so."""

import hashlib
import json
import shutil
import subprocess

import numpy as np
import pyexiv2
import pytest

from cyclegan import __version__
from cyclegan.cli import main
from cyclegan.errors import BadInput
from cyclegan.images import read_metadata, write_image
from cyclegan.metadata import Metadata
from cyclegan.translation.inspection import inspect_file
from cyclegan.translation.provenance import Label, read_label

TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"


def by_exiv2(path):
    """By names without their namespace, ours apart from the others."""
    with pyexiv2.Image(str(path)) as image:
        found = image.read_xmp()
    ours = {key.removeprefix("Xmp.cyclegan."): value for key, value in found.items() if "cyclegan." in key}
    return found["Xmp.iptcExt.DigitalSourceType"], found["Xmp.xmp.CreatorTool"], ours


def by_exiftool(path):
    """Written in Perl from the standards, with nothing in common with Exiv2 or with us."""
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    command = ["exiftool", "-json", "-G1", "-struct", "-validate", "-warning", "-XMP:all", str(path)]
    (found,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert "Error" not in found["ExifTool:Validate"], found
    ours = {key.split(":")[1]: value for key, value in found.items() if key.startswith("XMP-cyclegan:")}
    return found["XMP-iptcExt:DigitalSourceType"], found["XMP-xmp:CreatorTool"], ours


@pytest.mark.parametrize("reader", [by_exiv2, by_exiftool])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_other_readers_find_the_label(
    translator, generator, photograph, tmp_path, suffix, deep, config, reader
):
    source, out = photograph("in.png"), tmp_path / f"out{suffix}"
    if deep:
        write_image(source, np.full((20, 24, 3), 40_000, np.uint16))
    translator.file(source, out, quality=90)
    source_type, tool, ours = reader(out)
    assert (source_type, tool) == (TRAINED, f"cyclegan {__version__}")
    digest = hashlib.sha256((generator / "model.safetensors").read_bytes()).hexdigest()
    assert ours["GeneratorSHA256"] == digest
    assert ours["ConfigSHA256"] == hashlib.sha256((generator / "config.json").read_bytes()).hexdigest()
    assert ours["InputSHA256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert (ours["Domain"], ours["Direction"], ours["Source"]) == ("photo2monet", "AtoB", "photographs")
    assert ours["Target"] == config().target
    assert ours["TrainingLicences"] == ["A: CC-BY-4.0", "B: public domain: since 1997"]
    assert ours["DataCardSHA256"] == "c" * 64
    assert str(ours["Version"]) == __version__
    settings = json.loads(ours["Settings"])
    assert (settings["quality"], settings["size"]) == (90, None)
    assert (settings["backend"], settings["tiling"]) == ("torch", "auto, tile auto")


def test_our_own_reader_gives_back_what_was_stamped(translator, config):
    label = translator.label
    stamped = label.stamp(Metadata(exif=b"kept"), "d" * 64, {"size": 256})
    assert stamped.exif == b"kept"
    facts = read_label(stamped.xmp)
    assert facts == {**label.record(), "input_sha256": "d" * 64, "settings": {"size": 256}}
    assert facts["licences"] == config().licences


def test_the_same_picture_gets_the_same_bytes(translator, photograph, tmp_path):
    source = photograph("in.png")
    for name in ("one.png", "two.png"):
        translator.file(source, tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


@pytest.mark.parametrize("label", [True, False])
def test_what_the_original_claimed_is_not_carried_over(translator, photograph, tmp_path, label):
    source, out = photograph("in.jpg"), tmp_path / "out.jpg"
    with pyexiv2.Image(str(source)) as image:
        image.modify_xmp(
            {"Xmp.iptcExt.DigitalSourceType": TRAINED.replace("trainedAlgorithmicMedia", "digitalCapture")}
        )
        image.modify_exif({"Exif.Image.Artist": "Ümit Çelik"})
    assert "digitalCapture" in read_label(read_metadata(source).xmp)["digital_source_type"]
    translator.file(source, out, label=label)
    with pyexiv2.Image(str(out)) as image:
        assert image.read_xmp().get("Xmp.iptcExt.DigitalSourceType") == (TRAINED if label else None)
        assert image.read_exif()["Exif.Image.Artist"] == "Ümit Çelik"


def test_letters_that_xml_has_not_do_no_harm(config):
    xmp = Label.of(config(source="a\x00b\x1b[31m"), None).stamp(Metadata(), "0", {}).xmp
    assert read_label(xmp)["source"] == "a\ufffdb\ufffd[31m"
    assert "generator_sha256" not in read_label(xmp)


def test_of_thousands_of_authors_a_label_has_as_many_as_fit(config):
    names = "; ".join(f"Author {number}" for number in range(5000))
    label = Label.of(config(attribution={"A": names, "B": "Jo"}), None)
    assert label.attribution["B"] == "Jo"
    kept, _, rest = label.attribution["A"].partition("; and others")
    assert names.startswith(kept + "; ") and 3900 < len(kept) <= 4000 and "config.json" in rest
    assert len(label.stamp(Metadata(), "0", {}).xmp) < 64 * 1024


def test_a_licence_as_long_as_a_book_is_refused(config):
    with pytest.raises(BadInput, match="shorten them to 20,000"):
        Label.of(config(licences={"A": "x" * 30_000}), None)


@pytest.mark.parametrize(
    "xmp",
    [
        b"<not xml",
        b'<!DOCTYPE x [<!ENTITY a "aaaa">]><x>&a;</x>',
        b'<x xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:c="urn:x-cyclegan:label:1#"><r:Description c:Settings="[]"/></x>',
    ],
)
def test_xmp_that_is_none_is_a_fault_and_no_crash(tmp_path, xmp):
    path = tmp_path / "odd.png"
    write_image(path, np.zeros((8, 8, 3), np.uint8), metadata=Metadata(xmp=xmp))
    (fault,) = inspect_file(path).faults
    assert fault.startswith("its XMP cannot be read (")
    assert "\n" not in fault


def run(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return done.value.code, printed.out, printed.err


def test_the_record_beside_the_file(translator, photograph, tmp_path, capsys):
    out = tmp_path / "out" / "sub" / "a.png"
    translator.file(photograph("in.png"), out)
    digest = hashlib.sha256(out.read_bytes()).hexdigest()
    manifest = tmp_path / "out" / "manifest.jsonl"

    def record(*entries):
        manifest.write_text("".join(json.dumps(each) + "\n" for each in entries) + '{"output": "cut')
        return run(capsys, "inspect", out)

    right, wrong = ({"output": "sub/a.png", "output_sha256": each} for each in (digest, "0" * 64))
    assert inspect_file(out).recorded is None
    status, text, _ = record(wrong, right)
    assert status == 0 and f"as recorded in {manifest}" in text
    status, _, err = record(right, wrong)
    assert status == 1 and f"is not the file that {manifest} records" in err
    assert record({**wrong, "output": "sub/other.png"})[0] == 0


def test_a_label_cannot_command_the_terminal(tmp_path, capsys, config):
    path = tmp_path / "evil.png"
    xmp = Label.of(config(domain="a\x9b31m\u202eb"), None).stamp(Metadata(), "0", {}).xmp
    write_image(path, np.zeros((8, 8, 3), np.uint8), metadata=Metadata(xmp=xmp))
    _, out, _ = run(capsys, "inspect", path)
    assert "a\ufffd31m\ufffdb" in out
