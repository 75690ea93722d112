"""cyclegan data."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput, shown

if TYPE_CHECKING:
    from cyclegan.datasets.audit import Audit

SHOWN = 5  # files in one list; --json has all


def data(args: list[str]) -> int:
    def command(
        action: Annotated[Literal["list", "prepare", "verify", "audit"], tyro.conf.Positional],
        domain: Annotated[str | None, tyro.conf.Positional] = None,
        require_license: str | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """List the known domains, prepare one (fetch, check, unpack), verify or audit a prepared one.

        Args:
            action: what to do; audit tells whose the pictures are, what is unknown and what is there twice
            domain: a name from the list; for audit any folder too
            require_license: of audit: SPDX identifiers, comma-separated; exit status 2 if there is else
            json: end with one line of JSON
        """
        if require_license is not None and action != "audit":
            raise BadInput(f"--require-license: goes with audit, not with {action}")
        if action == "list":
            return lambda: _list_domains(json)
        if action == "audit":
            return lambda: _audit(domain, require_license, json)
        return lambda: _domain(action, domain, json)

    return parse(command, args, "cyclegan data")()


def _audit(name: str | None, required: str | None, as_json: bool) -> int:
    if name is None:
        raise BadInput("audit: name a DOMAIN ('cyclegan data list' shows them) or a FOLDER")
    from cyclegan.datasets.audit import Audit, audit_folder, domain_at, sources_of
    from cyclegan.datasets.cards import domain_folder, list_cards, load_card
    from cyclegan.datasets.licences import allowed_list
    from cyclegan.datasets.prepare import is_prepared

    allowed = None if required is None else allowed_list(required.split(","))
    # A domain's own folder is audited as the domain: its card knows more than its files do.
    domain = name if name in list_cards() else domain_at(Path(name))
    if domain is not None:
        folder, card = domain_folder(domain), load_card(domain)
        if not is_prepared(folder):
            if not as_json:
                print("\n".join(map(shown, _of_card(Audit(domain, sources_of(card), {})))))
            raise BadInput(f"{folder}: is not prepared; 'cyclegan data prepare {domain}' does it")
        audit = audit_folder(folder, card, domain)
    else:
        audit = audit_folder(Path(name))
    objection = None if allowed is None else audit.objection(allowed)
    if as_json:
        print_json({**audit.as_json(), "required": allowed, "objection": objection})
    else:
        print("\n".join(map(shown, _told(audit))))
    if objection is not None:
        raise BadInput(f"require_license: {objection}")
    return 0


def _told(audit: "Audit") -> Iterator[str]:
    """The audit as lines of text."""
    yield f"{audit.name}: {sum(map(len, audit.splits.values())):,} pictures"
    yield from _of_card(audit)
    if remark := audit.remark():
        yield f"  counts    {remark} ('cyclegan data verify {audit.name}' decodes all)"
    for split, counts in audit.counts().items():
        licences = ", ".join(f"{licence} {count}" for licence, count in counts.most_common())
        yield f"  {split or 'pictures':<9} {licences or 'none'}"
    holders = audit.holders().most_common()
    named = "; ".join(f"{name} ({count})" for name, count in holders[:SHOWN])
    yield f"  named     {named or 'nobody, in the files themselves'}{_more(len(holders))}"
    yield from _listed("unknown", [str(path) for path in audit.unknown()])
    yield from _listed("refused", [f"{path}: {said.where}: {said.text}" for path, said in audit.refusals()])
    yield from _listed("unread", [f"{path}: {reason}" for path, reason in audit.unread()])
    yield from _listed("twice", [" = ".join(map(str, group)) for group in audit.duplicates()])


def _of_card(audit: "Audit") -> Iterator[str]:
    # Whom both sides come from is told once.
    sides: dict[str, list[str]] = {}
    for source in audit.sources:
        known = source.licence or f"unknown ({source.stated})"
        words = f"{source.title}: {known}; by {source.attribution}; {source.url}"
        sides.setdefault(words, []).append(source.side)
    yield from (f"  card {'+'.join(letters)}  {words}" for words, letters in sides.items())
    if not audit.sources:
        yield "  card      none"


def _listed(what: str, entries: list[str]) -> Iterator[str]:
    yield f"  {what:<9} {len(entries) or 'none'}"
    yield from (f"    {entry}" for entry in entries[:SHOWN])
    if len(entries) > SHOWN:
        yield f"    {_more(len(entries)).strip('; ')}"


def _more(count: int) -> str:
    return f"; and {count - SHOWN} more" if count > SHOWN else ""


def _domain(action: str, domain: str | None, as_json: bool) -> int:
    """Prepare or verify one domain."""
    if domain is None:
        raise BadInput(f"{action}: name a DOMAIN ('cyclegan data list' shows them)")
    from cyclegan.datasets.prepare import count_images, prepare, verify

    counts = verify(domain) if action == "verify" else count_images(prepare(domain))
    if as_json:
        print_json({"domain": domain, "counts": counts, "good": True})
    else:
        said = ", ".join(f"{split} {count}" for split, count in counts.items())
        print(f"{domain}: {'all good' if action == 'verify' else 'prepared'}; {said}")
    return 0


def _list_domains(as_json: bool) -> int:
    from rich.console import Console
    from rich.table import Table

    from cyclegan.datasets.cards import domain_folder, list_cards, load_card
    from cyclegan.datasets.prepare import is_prepared

    cards = {name: load_card(name) for name in list_cards()}
    if as_json:
        ready = {name: is_prepared(domain_folder(name)) for name in cards}
        entries = [{"domain": n, "prepared": ready[n], **c.model_dump(mode="json")} for n, c in cards.items()]
        print_json({"domains": entries})
        return 0
    table = Table("domain", "A to B", "source", "here")
    for name, card in cards.items():
        here = "yes" if is_prepared(domain_folder(name)) else ""
        table.add_row(name, card.title, card.source.kind, here)
    Console().print(table)
    return 0
