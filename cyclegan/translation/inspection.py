"""How a picture came to be, from its file alone: label, signature, and the record beside it."""

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cyclegan.errors import BadInput
from cyclegan.images import BadImage, read_metadata
from cyclegan.metadata.credentials import CredentialsError, seems_signed
from cyclegan.translation.provenance import read_label
from cyclegan.translation.signing import Signature, need_c2pa, read_signature

MANIFEST = "manifest.jsonl"


@dataclass(frozen=True)
class Finding:
    """What one file says of its origin.

    Args:
        label: what its XMP says (``Label.facts``); None without one. Anyone can write or change it.
        signature: its C2PA manifest; None without one.
        manifest: the manifest.jsonl that lists the file, if one does.
        recorded: whether the file is, byte for byte, the one listed there; None if none lists it.
        faults: what does not hold, in words; empty when all that is there holds.
    """

    path: Path
    label: dict[str, Any] | None
    signature: Signature | None
    manifest: Path | None
    recorded: bool | None
    faults: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        values = asdict(self)
        values["path"] = str(self.path)
        values["manifest"] = str(self.manifest) if self.manifest else None
        return {**values, "holds": not self.faults}


def read_trust(path: Path) -> bytes:
    """PEM certificates of those whose signatures are trusted.

    Raises:
        BadInput: it is no such file, or c2pa-python is missing.
    """
    need_c2pa()
    from cryptography import x509

    try:
        pem = path.read_bytes()
        x509.load_pem_x509_certificates(pem)
    except OSError as error:
        raise BadInput(f"--trust: {path} cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise BadInput(f"--trust: {path} holds no PEM certificates") from error
    return pem


def inspect_file(path: Path, trust: bytes | None = None) -> Finding:
    """Read and verify all that a file says of its origin.

    Args:
        trust: PEM certificates; with them, a file without a signature that ends in one of them fails.

    Raises:
        BadInput: ``path`` cannot be read, or c2pa-python is missing and ``trust`` given.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    faults: list[str] = []
    signature = _signature(data, trust, faults)
    label = None
    try:
        label = read_label(read_metadata(path).xmp)
    except BadImage as error:
        faults.append(str(error).removeprefix(f"{path}: "))
    except (ValueError, RecursionError) as error:
        faults.append(f"its XMP cannot be read ({error})")
    manifest, expected = _record_of(path)
    recorded = expected and expected == hashlib.sha256(data).hexdigest()
    if recorded is False:
        faults.append(f"is not the file that {manifest} records: its bytes were changed since")
    return Finding(path, label, signature, manifest, recorded, tuple(faults))


def _signature(data: bytes, trust: bytes | None, faults: list[str]) -> Signature | None:
    try:
        signature = read_signature(data, trust)
    except CredentialsError as error:
        faults.append(f"its C2PA manifest cannot be read ({error})")
        return None
    except BadInput:
        if trust is not None:
            raise
        if seems_signed(data):
            faults.append("seems signed, and cannot be checked: pip install 'cyclegan[provenance]'")
        return None
    if signature is None:
        if trust is not None:
            faults.append("has no signature")
    elif signature.changed:
        faults.append(f"was changed after it was signed ({signature.fault})")
    elif signature.fault:
        faults.append(f"its signature does not hold ({signature.fault})")
    elif trust is not None and not signature.trusted:
        faults.append(f"its signer, {signature.signer}, is not one of those trusted")
    return signature


def _record_of(path: Path) -> tuple[Path | None, str | None]:
    """The nearest manifest.jsonl, beside the file or above it, that lists it; and the digest there."""
    path = path.resolve()
    for folder in path.parents:
        manifest = folder / MANIFEST
        if manifest.is_file():
            stat = manifest.stat()
            digest = _digests(manifest, stat.st_mtime_ns, stat.st_size).get(path)
            if digest is not None:
                return manifest, digest
    return None, None


@functools.lru_cache(maxsize=4)
def _digests(manifest: Path, changed_at: int, size: int) -> dict[Path, str]:
    """SHA-256 by file; a later line counts, for a file may have been made anew.

    The manifest's time and size are there to read it again when it has grown.
    """
    found = {}
    for line in manifest.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # the last line of a run that was killed may be cut
        if isinstance(entry, dict) and entry.get("output") and entry.get("output_sha256"):
            found[manifest.parent / str(entry["output"])] = str(entry["output_sha256"])
    return found
