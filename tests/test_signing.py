"""Signatures: as c2pa's own reader sees them, and no longer holding once pixels change."""

import datetime
import hashlib
import json
import os
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import c2pa
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from PIL import Image

from cyclegan.cli import main
from cyclegan.errors import BadInput
from cyclegan.images import read_image, read_metadata
from cyclegan.translation.inspection import inspect_file
from cyclegan.translation.provenance import read_label
from cyclegan.translation.signing import Signer

ROOT = Path(__file__).resolve().parent.parent
TRAINED = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
MIME = {".jpg": "image/jpeg", ".png": "image/png", ".webp": "image/webp", ".tif": "image/tiff"}


def make_pair(common_name, issuer=None, key=None, usages=None, days=30, ca=False):
    """A key and its certificate as C2PA 2.2 §14.5 asks for, signed by ``issuer`` (or by itself)."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "A Test"),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name),
        ]
    )
    issuer_key, issuer_cert = issuer or (key, None)
    now = datetime.datetime.now(datetime.timezone.utc)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer_cert.subject if issuer_cert else name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    )
    if not ca:
        usages = usages or [ExtendedKeyUsageOID.EMAIL_PROTECTION]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return key, builder.sign(issuer_key, hashes.SHA256())


def write_pair(folder, name, pair, *chain):
    key, certificate = pair
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (certificate, *chain))
    (folder / f"{name}.pem").write_bytes(pem)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / f"{name}.key").write_bytes(secret)


@pytest.fixture(scope="module")
def authority():
    return make_pair("Test Root", ca=True)


@pytest.fixture(scope="module")
def papers(authority, tmp_path_factory):
    """A chain and its key, its root, and the root of somebody else."""
    folder = tmp_path_factory.mktemp("papers")
    write_pair(folder, "chain", make_pair("Test Signer", authority), authority[1])
    write_pair(folder, "root", authority)
    write_pair(folder, "stranger", make_pair("Stranger", ca=True))
    return folder


@pytest.fixture(scope="module")
def signer(papers):
    return Signer.load(papers / "chain.pem", papers / "chain.key")


@pytest.fixture
def signed(translator, signer, photograph, tmp_path):
    """Writes a signed translation."""

    def write(suffix, source="in.jpg", **options):
        out = tmp_path / f"out{suffix}"
        translator.file(photograph(source, **options), out, signer=signer)
        return out

    return write


@pytest.mark.parametrize("source", ["in.jpg", "in.bmp", "in.tif"])
@pytest.mark.parametrize("suffix", MIME)
def test_the_manifest_as_c2pa_reads_it(signed, tmp_path, papers, suffix, source):
    out = signed(suffix, source)
    with out.open("rb") as file, c2pa.Reader(MIME[suffix], file) as reader:
        manifest = reader.get_active_manifest()
        assert reader.get_validation_state() == "Valid"
        failures = reader.get_validation_results()["activeManifest"]["failure"]
    assert [each["code"] for each in failures] == ["signingCredential.untrusted"]
    (ingredient,) = manifest["ingredients"]
    assert (ingredient["title"], ingredient["relationship"]) == (source, "parentOf")
    assertions = {each["label"]: each["data"] for each in manifest["assertions"]}
    opened, edited = assertions["c2pa.actions.v2"]["actions"]
    assert opened["action"] == "c2pa.opened"
    assert "c2pa.ingredient" in opened["parameters"]["ingredients"][0]["url"]
    assert (edited["action"], edited["digitalSourceType"]) == ("c2pa.edited", TRAINED)
    facts = assertions["org.cyclegan.translation"]
    assert facts["input_sha256"] == hashlib.sha256((tmp_path / source).read_bytes()).hexdigest()
    assert facts["licences"] == {"A": "CC-BY-4.0", "B": "public domain: since 1997"}
    assert manifest["title"] == out.name
    assert read_image(out).pixels.shape == (29, 37, 3)
    assert facts == read_label(read_metadata(out).xmp)


def flip_a_pixel(path):
    """Another picture in the same file: coded pixels changed, all checksums made to fit."""
    data = bytearray(path.read_bytes())
    if path.suffix == ".png":
        at, pixels = 8, b""
        while at < len(data):
            (length,) = struct.unpack_from(">I", data, at)
            if data[at + 4 : at + 8] == b"IDAT":
                pixels = zlib.decompress(data[at + 8 : at + 8 + length])
                body = zlib.compress(pixels[:-1] + bytes([pixels[-1] ^ 255]))
                chunk = struct.pack(">I", len(body)) + b"IDAT" + body
                data[at : at + 12 + length] = chunk + struct.pack(">I", zlib.crc32(chunk[4:]))
                break
            at += 12 + length
    elif path.suffix == ".jpg":
        at = data.rindex(b"\xff\xda") + 60  # in the scan; a plain byte stays a plain byte
        data[at] = 0x55 if data[at] != 0x55 else 0x2A
    elif path.suffix == ".webp":
        data[data.index(b"VP8 ") + 60] ^= 1
    else:  # TIFF: the first strip stands behind the header
        strip = Image.open(path).tag_v2
        at, length = strip[273][0], strip[279][0]
        pixels = zlib.decompress(data[at : at + length])
        body = zlib.compress(pixels[:-1] + bytes([pixels[-1] ^ 255]))
        data[at : at + length] = body[:length].ljust(length, b"\0")
    path.write_bytes(data)


@pytest.mark.parametrize("suffix", MIME)
def test_changed_pixels_fail(signed, capsys, suffix):
    out = signed(suffix)
    with pytest.raises(SystemExit) as done:
        main(["inspect", str(out)])
    assert done.value.code == 0
    before = np.asarray(Image.open(out))
    flip_a_pixel(out)
    assert (np.asarray(Image.open(out)) != before).any()
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(["inspect", str(out)])
    printed = capsys.readouterr()
    assert done.value.code == 1
    (line,) = printed.err.splitlines()
    assert line.startswith(
        f"cyclegan inspect: {out}: was changed after it was signed (assertion.dataHash.mismatch"
    )
    assert "DOES NOT HOLD" in printed.out


def test_another_picture_under_a_copied_manifest_fails(signed, tmp_path):
    """Somebody saves another picture and moves the signed file's manifest chunk into it."""
    out = signed(".png")
    data = out.read_bytes()
    at = data.index(b"caBX") - 4
    (length,) = struct.unpack_from(">I", data, at)
    buffer = BytesIO()
    Image.new("RGB", (37, 29), "red").save(buffer, "PNG")
    fresh = buffer.getvalue()
    out.write_bytes(fresh[:33] + data[at : at + 12 + length] + fresh[33:])
    finding = inspect_file(out)
    assert finding.signature.changed
    assert "was changed after it was signed" in finding.faults[0]


def test_a_changed_label_fails_too(signed):
    out = signed(".jpg")
    out.write_bytes(out.read_bytes().replace(b"CC-BY-4.0</rdf", b"CC0-1.0  </rdf"))
    assert "was changed after it was signed" in inspect_file(out).faults[0]


@pytest.mark.parametrize(
    ("trust", "status", "message"),
    [
        ("root", 0, None),
        ("chain", 0, None),
        ("stranger", 1, "its signer, Test Signer, A Test, is not one of those trusted"),
    ],
)
def test_trust_is_what_the_reader_names(signed, papers, capsys, trust, status, message):
    out = signed(".png")
    with pytest.raises(SystemExit) as done:
        main(["inspect", str(out), "--trust", str(papers / f"{trust}.pem"), "--json"])
    printed = capsys.readouterr()
    assert done.value.code == status
    (file,) = json.loads(printed.out.splitlines()[-1])["files"]
    assert file["signature"]["trusted"] == file["holds"] == (status == 0)
    assert file["signature"]["fault"] is None
    if message:
        assert message in printed.err


def test_where_trust_is_asked_for_no_signature_fails(photograph, papers):
    plain = photograph("plain.png")
    assert inspect_file(plain).faults == ()
    assert inspect_file(plain, (papers / "root.pem").read_bytes()).faults == ("has no signature",)


def test_a_translation_of_a_translation_keeps_the_chain(signed, translator, signer, tmp_path):
    first, second = signed(".png"), tmp_path / "second.png"
    translator.file(first, second, signer=signer)
    (ingredient,) = inspect_file(second).signature.ingredients
    assert (ingredient.title, ingredient.state) == ("out.png", "valid")
    flip_a_pixel(first)
    translator.file(first, second, signer=signer)
    finding = inspect_file(second)
    assert finding.signature.ingredients[0].state == "invalid"
    assert finding.faults == ()


KEYS = {
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key(authority, tmp_path, kind):
    write_pair(tmp_path, "other", make_pair("Other", authority, KEYS[kind]()), authority[1])
    Signer.load(tmp_path / "other.pem", tmp_path / "other.key")


def bad_papers(folder, authority):
    """All that can be wrong with a chain and a key."""
    write_pair(folder, "good", make_pair("Good", authority), authority[1])
    write_pair(folder, "old", make_pair("Old", authority, days=-1), authority[1])
    write_pair(
        folder,
        "server",
        make_pair("Server", authority, usages=[ExtendedKeyUsageOID.SERVER_AUTH]),
        authority[1],
    )
    write_pair(folder, "root", authority)
    write_pair(
        folder, "small", make_pair("Small", authority, ec.generate_private_key(ec.SECP256K1())), authority[1]
    )
    key = make_pair("Locked", authority)[0]
    locked = serialization.BestAvailableEncryption(b"secret")
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, locked)
    (folder / "locked.key").write_bytes(pem)


@pytest.mark.parametrize(
    ("cert", "key", "message"),
    [
        ("nowhere.pem", "good.key", "--sign-cert: .*nowhere.pem cannot be read .No such file"),
        ("good.pem", "nowhere.key", "--sign-key: .*nowhere.key cannot be read .No such file"),
        ("good.key", "good.key", "--sign-cert: .*good.key is not a chain of PEM certificates"),
        ("good.pem", "good.pem", "--sign-key: .*good.pem is not a private key in PEM"),
        (
            "good.pem",
            "old.key",
            "--sign-key: .*old.key is not the key of the first certificate in .*good.pem",
        ),
        ("good.pem", "locked.key", "--sign-key: .*locked.key is encrypted"),
        ("small.pem", "small.key", "--sign-key: C2PA has no such keys"),
        ("old.pem", "old.key", "--sign-cert: C2PA .*old.pem"),
        ("server.pem", "server.key", "--sign-cert: C2PA .*server.pem"),
        ("root.pem", "root.key", "--sign-cert: C2PA .*root.pem"),
    ],
)
def test_papers_that_c2pa_does_not_take(authority, tmp_path, cert, key, message):
    bad_papers(tmp_path, authority)
    with pytest.raises(BadInput, match=message) as caught:
        Signer.load(tmp_path / cert, tmp_path / key)
    assert "\n" not in str(caught.value)


# --- the commands


def run(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return done.value.code, printed.out, printed.err


def test_the_commands_from_folder_to_verdict(generator, papers, photograph, tmp_path, capsys):
    for name in ("in/a.jpg", "in/sub/b.png"):
        photograph(name)
    signing = ["--sign-cert", papers / "chain.pem", "--sign-key", papers / "chain.key"]
    status, _, _ = run(capsys, "translate", generator, tmp_path / "in", tmp_path / "out", *signing)
    assert status == 0
    files = [tmp_path / "out" / "a.jpg", tmp_path / "out" / "sub" / "b.png"]
    status, out, err = run(capsys, "inspect", *files, "--trust", papers / "root.pem")
    assert (status, err) == (0, "")
    assert out.count("signature  holds") == out.count("Test Signer, A Test (trusted)") == 2
    assert out.count(TRAINED) == out.count("data       A: CC-BY-4.0") == 2
    _, _, err = run(capsys, "translate", generator, files[0], tmp_path / "a.bmp")
    assert err == "cyclegan translate: BMP has no place for a label; 1 go without\n"
    run(capsys, "translate", generator, tmp_path / "in", tmp_path / "bare", "--no-label")
    status, out, _ = run(capsys, "inspect", tmp_path / "bare" / "a.jpg")
    assert status == 0
    assert "label      none" in out and "signature  none" in out


@pytest.mark.slow
def test_several_processes_sign_and_go_on(generator, papers, photograph, tmp_path, capsys):
    """Each file is signed once, by one of them; a manifest has an identifier of its own, so bytes differ."""
    for name in ("in/a.jpg", "in/b.png", "in/sub/c.webp", "in/sub/d.tif"):
        photograph(name)
    launcher = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m")
    signing = ("--sign-cert", papers / "chain.pem", "--sign-key", papers / "chain.key")
    words = ("translate", generator, tmp_path / "in", tmp_path / "out", *signing)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", *launcher, "cyclegan", *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Translated 4 of 4 images" in done.stdout
    made = sorted(path for path in (tmp_path / "out").rglob("*.*") if path.suffix != ".jsonl")
    assert [path.name for path in made] == ["a.jpg", "b.png", "c.webp", "d.tif"]
    status, out, err = run(capsys, "inspect", *made, "--trust", papers / "root.pem")
    assert (status, err) == (0, "")
    assert out.count("signature  holds") == out.count("as recorded in") == 4
    status, out, err = run(capsys, *words)  # alone, later: there is nothing left to do
    assert status == 0, err
    assert "Translated 0 of 4 images" in out and "4 were done before" in out


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        (
            "in.bmp",
            ["--sign-cert", "chain.pem", "--sign-key", "chain.key"],
            "in.bmp: .bmp files cannot be signed",
        ),
        (
            "in.png",
            ["--sign-cert", "chain.pem"],
            "signing needs both --sign-cert CHAIN.pem and --sign-key KEY.pem",
        ),
        ("in.png", ["--sign-tsa", "http://127.0.0.1:9"], "signing needs both"),
        (
            "in.png",
            ["--sign-cert", "chain.pem", "--sign-key", "chain.key", "--no-label"],
            "label: a signature says what the label says",
        ),
        (
            "in.png",
            ["--sign-cert", "chain.pem", "--sign-key", "chain.key", "--sign-tsa", "ftp"],
            "--sign-tsa: ftp is not an address",
        ),
    ],
)
def test_signing_that_cannot_be_is_said_before_anything_starts(
    generator, papers, photograph, tmp_path, capsys, monkeypatch, source, words, message
):
    path = photograph(source)
    monkeypatch.chdir(papers)
    status, out, err = run(capsys, "translate", generator, path, tmp_path / "out" / source, *words)
    assert (status, out) == (2, "")
    assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_without_the_extra_one_line_says_what_to_install(
    generator, papers, photograph, signed, tmp_path, capsys, monkeypatch
):
    out = signed(".png")
    monkeypatch.setitem(sys.modules, "c2pa", None)
    signing = ["--sign-cert", papers / "chain.pem", "--sign-key", papers / "chain.key"]
    status, _, err = run(capsys, "translate", generator, photograph("in.png"), tmp_path / "new.png", *signing)
    assert status == 2 and "pip install 'cyclegan[provenance]'" in err
    status, text, err = run(capsys, "inspect", out)
    assert status == 1 and "seems signed, and cannot be checked: pip install" in err
    assert TRAINED in text
    assert run(capsys, "inspect", photograph("plain.png"))[0] == 0
    assert run(capsys, "inspect", out, "--trust", papers / "root.pem")[0] == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one file or more"),
        (["nowhere.png"], "nowhere.png: no such file"),
        (["chain.pem", "--trust", "chain.key"], "--trust: chain.key holds no PEM certificates"),
    ],
)
def test_inspect_on_bad_input(papers, capsys, monkeypatch, words, message):
    monkeypatch.chdir(papers)
    status, _, err = run(capsys, "inspect", *words)
    assert status == 2 and message in err


def test_a_file_that_is_no_image_is_one_fault(papers, capsys):
    status, _, err = run(capsys, "inspect", papers / "chain.pem")
    assert status == 1
    assert err == f"cyclegan inspect: {papers / 'chain.pem'}: is not a JPEG, PNG, WebP, TIFF or BMP image\n"
