"""Content credentials (C2PA) as they lie in a file, read and verified by c2pa-python."""

import json
from collections.abc import Mapping
from io import BytesIO
from typing import Any

# Nothing is fetched from anywhere.
OFFLINE = {"remote_manifest_fetch": False, "ocsp_fetch": False}
UNTRUSTED = "signingCredential.untrusted"  # no fault of the signature: the signer is not known here


class CredentialsError(Exception):
    """What c2pa-python could not do, in its words."""


class NotInstalled(Exception):
    """c2pa-python is an extra."""


def seems_signed(data: bytes) -> bool:
    """Without c2pa-python: are there the marks of a manifest (a JUMBF box of type c2pa)?"""
    return b"jumd" in data and b"c2pa" in data


def read_store(data: bytes, trust: bytes | None = None) -> tuple[dict[str, Any], str | None] | None:
    """A file's manifest store in C2PA's JSON, and whether it holds ("Valid", "Trusted", "Invalid").

    Args:
        data: the file's bytes, of any format that C2PA knows.
        trust: PEM certificates whose signers are known.

    Returns:
        None where there is none.

    Raises:
        CredentialsError: there is a manifest that cannot be read.
        NotInstalled: c2pa-python is missing.
    """
    try:
        import c2pa
    except ImportError as error:
        raise NotInstalled from error
    settings: dict[str, Any] = {"verify": {**OFFLINE, "verify_trust": True}}
    if trust is not None:
        settings["trust"] = {"user_anchors": trust.decode()}
    try:
        with c2pa.Context.from_dict(settings) as context:
            reader = c2pa.Reader.try_create(None, BytesIO(data), context=context)
            if reader is None:
                return None
            with reader:
                return json.loads(reader.json()), reader.get_validation_state()
    except c2pa.C2paError.NotSupported:
        return None  # a format that can hold no manifest
    except c2pa.C2paError as error:
        raise CredentialsError(plain(error)) from error


def ingredient_holds(ingredient: Mapping[str, Any]) -> bool:
    """Whether the signature of what went into a file held when it did, as the file's manifest says."""
    failed = ingredient.get("validation_results", {}).get("activeManifest", {}).get("failure", [])
    return {each["code"] for each in failed} <= {UNTRUSTED}


def plain(error: Exception) -> str:
    return " ".join(str(error).split())
