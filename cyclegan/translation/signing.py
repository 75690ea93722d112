"""Signatures: a C2PA manifest in the file, with the input as its ingredient (C2PA 2.2, by c2pa-python).

The manifest says what C2PA says of an existing picture that a model made anew: ``c2pa.opened`` with the
input as ``parentOf`` (§18.14.2: a manifest with a parent begins so), then ``c2pa.edited`` with the
digital source type of what the model made (Guidance 2.2 §5.2.2). What the label says stands in an
assertion of our own.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from cyclegan.errors import BadInput
from cyclegan.images import BadImage, encode_image
from cyclegan.metadata.credentials import (
    OFFLINE,
    UNTRUSTED,
    CredentialsError,
    ingredient_holds,
    plain,
    read_store,
)
from cyclegan.translation.provenance import DIGITAL_SOURCE_TYPE

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

ASSERTION = "org.cyclegan.translation"
MIME_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
}
# No thumbnails, for the picture itself is there; nothing is fetched from anywhere.
_SETTINGS = {"builder": {"thumbnail": {"enabled": False}}, "verify": OFFLINE}


def need_c2pa() -> Any:
    """The module c2pa.

    Raises:
        BadInput: it is not installed.
    """
    try:
        import c2pa
    except ImportError as error:
        raise BadInput("signatures need c2pa-python: pip install 'cyclegan[provenance]'") from error
    return c2pa


@dataclass(frozen=True)
class Signer:
    """Who signs: a chain of certificates, the signer's own first, and its key (both PEM).

    ``timestamps`` is the address of a timestamp authority (RFC 3161), asked for each file; without
    one nothing goes over the network, and a signature holds as long as its certificate does.
    """

    algorithm: str
    chain: bytes
    key: bytes = field(repr=False)
    timestamps: str | None = None

    @classmethod
    def load(cls, cert: Path, key: Path, timestamps: str | None = None) -> "Signer":
        """Read the files, and sign and verify one small picture with them.

        Raises:
            BadInput: c2pa-python is missing, or C2PA does not take this chain or key.
        """
        need_c2pa()
        if timestamps is not None and not timestamps.startswith(("http://", "https://")):
            raise BadInput(f"--sign-tsa: {timestamps} is not an address; it begins with http:// or https://")
        chain, certificate = _certificate(cert)
        algorithm, pem = _private_key(key, cert, certificate)
        cls(algorithm, chain, pem)._try(cert)
        return cls(algorithm, chain, pem, timestamps)

    def _try(self, cert: Path) -> None:
        """What C2PA refuses (no such key usage, expired, ...) shows in a signature, so one is made."""
        picture = encode_image(".png", np.zeros((8, 8, 3), np.uint8))
        facts = dict.fromkeys(("source", "target", "cyclegan_version"), "trial")
        facts["digital_source_type"] = DIGITAL_SOURCE_TYPE
        manifest = _manifest("trial", "image/png", facts)
        try:
            signature = read_signature(self._embed(picture, "image/png", manifest, "trial", picture))
        except CredentialsError as error:
            raise BadInput(f"--sign-cert: C2PA cannot sign with {cert} ({error})") from error
        if signature is None or signature.fault:
            found = signature.fault if signature else "nothing was signed"
            raise BadInput(f"--sign-cert: C2PA does not accept {cert} ({found})")

    @staticmethod
    def refuse_unsignable(targets: list[Path]) -> None:
        """Before anything starts: can files of these names be signed?

        Raises:
            BadInput: names the first that cannot.
        """
        for target in targets:
            if target.suffix.lower() not in MIME_TYPES:
                raise BadInput(
                    f"{target}: {target.suffix} files cannot be signed; write JPEG, PNG, WebP or TIFF instead"
                )

    def sign(self, data: bytes, target: Path, source: Path, facts: Mapping[str, Any]) -> bytes:
        """The bytes of a file with its manifest in them.

        Args:
            data: an encoded picture.
            target: where it will stand, for its name and format.
            source: the input, which becomes the ingredient.
            facts: what the label says (``Label.facts``).

        Raises:
            BadImage: the input cannot be an ingredient, or the signing failed.
        """
        mime = MIME_TYPES[target.suffix.lower()]
        try:
            return self._embed(
                data, mime, _manifest(target.name, mime, facts), source.name, source.read_bytes()
            )
        except CredentialsError as error:
            raise BadImage(f"{target}: cannot be signed ({error})") from error

    def _embed(self, data: bytes, mime: str, manifest: dict[str, Any], name: str, original: bytes) -> bytes:
        c2pa = need_c2pa()
        ingredient = {"title": name, "relationship": "parentOf", "label": "source"}
        signed = BytesIO()
        try:
            info = c2pa.C2paSignerInfo(self.algorithm, self.chain, self.key, self.timestamps)
            with (
                c2pa.Context.from_dict(_SETTINGS) as context,
                c2pa.Builder(manifest, context=context) as builder,
                c2pa.Signer.from_info(info) as signer,
            ):
                builder.add_ingredient(ingredient, _mime_of(original), BytesIO(original))
                builder.sign(signer, mime, BytesIO(data), signed)
        except c2pa.C2paError as error:
            raise CredentialsError(plain(error)) from error
        return signed.getvalue()


def _manifest(title: str, mime: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What c2pa-python signs. ``created``: we vouch for it, it was not gathered from others (§10.2.2)."""
    agent = {"name": "cyclegan", "version": facts["cyclegan_version"]}
    actions = [
        {"action": "c2pa.opened", "parameters": {"ingredientIds": ["source"]}},
        {
            "action": "c2pa.edited",
            "digitalSourceType": facts["digital_source_type"],
            "softwareAgent": agent,
            "description": _description(facts),
        },
    ]
    known = {key: value for key, value in facts.items() if value is not None}
    return {
        "title": title,
        "format": mime,
        "claim_generator_info": [agent],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}, "created": True},
            {"label": ASSERTION, "data": known, "created": True},
        ],
    }


def _description(facts: Mapping[str, Any]) -> str:
    if facts.get("system"):
        return f"Stylized: {facts['system']}"
    return f"Translated by a generator, {facts['source']} to {facts['target']}"


def _mime_of(data: bytes) -> str:
    """By the bytes, for a suffix may lie."""
    with Image.open(BytesIO(data)) as image:
        return Image.MIME[image.format or ""]


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{option}: {path} cannot be read ({error.strerror})") from error


def _certificate(path: Path) -> tuple[bytes, "Certificate"]:
    from cryptography import x509

    pem = _read(path, "--sign-cert")
    try:
        return pem, x509.load_pem_x509_certificates(pem)[0]
    except ValueError as error:
        raise BadInput(f"--sign-cert: {path} is not a chain of PEM certificates") from error


def _private_key(path: Path, cert: Path, certificate: "Certificate") -> tuple[str, bytes]:
    """C2PA's name of the algorithm (§13.2.1), and the key as the library takes it."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    try:
        key = serialization.load_pem_private_key(_read(path, "--sign-key"), password=None)
    except TypeError as error:
        raise BadInput(
            f"--sign-key: {path} is encrypted; write it without a password (openssl pkey -in {path})"
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadInput(f"--sign-key: {path} is not a private key in PEM") from error
    if key.public_key() != certificate.public_key():
        raise BadInput(f"--sign-key: {path} is not the key of the first certificate in {cert}")
    algorithm = None
    if isinstance(key, ec.EllipticCurvePrivateKey):
        algorithm = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}.get(key.curve.name)
    elif isinstance(key, rsa.RSAPrivateKey):
        algorithm = "ps256"
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    if algorithm is None:
        raise BadInput(
            f"--sign-key: C2PA has no such keys as {path}; use P-256, P-384, P-521, Ed25519 or RSA"
        )
    encoding = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return algorithm, key.private_bytes(*encoding)


@dataclass(frozen=True)
class Ingredient:
    """What a picture was made from: ``state`` is C2PA's of its own signature, None without one."""

    title: str
    relationship: str
    state: str | None


@dataclass(frozen=True)
class Signature:
    """What a file's active manifest says, and whether it holds.

    ``fault`` says why not: C2PA's codes (§15.2). ``trusted``: the chain ends in a certificate that the
    reader named.
    """

    signer: str
    time: str | None
    trusted: bool
    fault: str | None
    changed: bool
    facts: Mapping[str, Any] | None
    actions: tuple[str, ...]
    ingredients: tuple[Ingredient, ...]


def read_signature(data: bytes, trust: bytes | None = None) -> Signature | None:
    """A file's signature, verified; None where there is none.

    Args:
        data: the file's bytes, of any format that C2PA knows.
        trust: PEM certificates whose signers are known.

    Raises:
        CredentialsError: there is a manifest that cannot be read.
        BadInput: c2pa-python is missing.
    """
    need_c2pa()
    found = read_store(data, trust)
    return None if found is None else _signature(*found)


def _signature(store: dict[str, Any], state: str | None) -> Signature:
    manifest = store.get("manifests", {}).get(store.get("active_manifest"))
    if manifest is None:
        raise CredentialsError("the active manifest is not there")
    results = store.get("validation_results", {})
    failed = [*results.get("activeManifest", {}).get("failure", [])]
    for delta in results.get("ingredientDeltas", []):
        failed += delta["validationDeltas"]["failure"]
    codes = sorted({failure["code"] for failure in failed} - {UNTRUSTED})
    if state == "Invalid" and not codes:
        codes = ["invalid"]
    info = manifest.get("signature_info", {})
    names = [info[key] for key in ("common_name", "issuer") if info.get(key)]
    data = {each["label"]: each["data"] for each in manifest.get("assertions", [])}
    return Signature(
        signer=", ".join(names) or "unnamed",
        time=info.get("time"),
        trusted=state == "Trusted",
        fault=", ".join(codes) or None,
        changed=any("mismatch" in code.lower() for code in codes),
        facts=data.get(ASSERTION),
        actions=tuple(each["action"] for each in data.get("c2pa.actions.v2", {}).get("actions", [])),
        ingredients=tuple(_ingredient(each) for each in manifest.get("ingredients", [])),
    )


def _ingredient(found: dict[str, Any]) -> Ingredient:
    state = None
    if "active_manifest" in found:
        state = "valid" if ingredient_holds(found) else "invalid"
    return Ingredient(found.get("title") or "untitled", found["relationship"], state)
