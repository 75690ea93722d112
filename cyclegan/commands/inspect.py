"""cyclegan inspect."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput

if TYPE_CHECKING:
    from cyclegan.translation.inspection import Finding
    from cyclegan.translation.signing import Signature


def inspect(args: list[str]) -> int:
    def command(
        files: Annotated[tuple[Path, ...], tyro.conf.Positional],
        trust: Path | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Read back and verify what pictures say of their origin: label, signature, manifest.jsonl.

        Exit status 1 if something that is there does not hold: a file changed after it was signed, or
        other than manifest.jsonl records. A file that says nothing of its origin is no failure.

        Args:
            files: pictures
            trust: certificates (PEM) of signers you trust; files not signed by one of them then fail
            json: end with one line of JSON
        """
        return lambda: _inspect(files, trust, json)

    return parse(command, args, "cyclegan inspect")()


def _inspect(files: tuple[Path, ...], trust: Path | None, as_json: bool) -> int:
    if not files:
        raise BadInput("name one file or more (cyclegan inspect --help)")
    for path in files:
        if not path.is_file():
            raise BadInput(f"{path}: no such file")
    from cyclegan.translation.inspection import inspect_file, read_trust

    anchors = None if trust is None else read_trust(trust)
    findings = [inspect_file(path, anchors) for path in files]
    if as_json:
        print_json({"files": [finding.as_json() for finding in findings]})
    else:
        print("\n".join(line for finding in findings for line in _lines(finding)))
    for finding in findings:
        for fault in finding.faults:
            print(f"cyclegan inspect: {_shown(finding.path)}: {_shown(fault)}", file=sys.stderr)
    return 1 if any(finding.faults for finding in findings) else 0


def _lines(finding: "Finding") -> list[str]:
    rows = [*_label_rows(finding.label), *_signature_rows(finding.signature)]
    if finding.manifest is not None:
        how = "as recorded in" if finding.recorded else "NOT as recorded in"
        rows.append(("manifest", f"{how} {finding.manifest}"))
    return [_shown(finding.path), *(f"  {name:<10} {_shown(text)}" for name, text in rows)]


def _label_rows(label: dict[str, Any] | None) -> list[tuple[str, str]]:
    if label is None:
        return [("label", "none")]
    rows = [("label", label.get("digital_source_type", "no digital source type"))]
    if "domain" in label:
        rows.append(("translated", f"{label.get('source')} to {label.get('target')}"))
        digest = label.get("generator_sha256", "unknown")
        rows.append(("generator", f"{label['domain']} {label.get('direction')}, sha256 {digest}"))
    if "system" in label:
        rows.append(("stylized", f"{label['system']}, sha256 {label.get('generator_sha256', 'unknown')}"))
    if "style_sha256" in label:
        rows.append(("style", f"sha256 {label['style_sha256']}"))
    rows += [("data", f"{side}: {licence}") for side, licence in label.get("licences", {}).items()]
    rows += [("by", f"{side}: {names}") for side, names in label.get("attribution", {}).items()]
    if "input_sha256" in label:
        rows.append(("input", f"sha256 {label['input_sha256']}"))
    settings = [f"{key} {value}" for key, value in label.get("settings", {}).items() if value is not None]
    if settings:
        rows.append(("settings", ", ".join(settings)))
    if "cyclegan_version" in label:
        rows.append(("by", f"cyclegan {label['cyclegan_version']}"))
    return rows


def _signature_rows(signature: "Signature | None") -> list[tuple[str, str]]:
    if signature is None:
        return [("signature", "none")]
    known = "trusted" if signature.trusted else "not known here; --trust CHAIN.pem names whom you trust"
    rows = [
        ("signature", f"DOES NOT HOLD ({signature.fault})" if signature.fault else "holds"),
        ("signer", f"{signature.signer} ({known})"),
        ("actions", ", ".join(signature.actions)),
    ]
    if signature.time:
        rows.append(("signed at", signature.time))
    for each in signature.ingredients:
        own = f"its own signature is {each.state}" if each.state else "without a signature of its own"
        rows.append(("ingredient", f"{each.title} ({each.relationship}), {own}"))
    return rows


def _shown(text: object) -> str:
    """What a stranger's file says reaches a terminal as letters, not as commands."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(text))
