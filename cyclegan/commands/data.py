"""cyclegan data."""

from collections.abc import Callable
from typing import Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput


def data(args: list[str]) -> int:
    def command(
        action: Annotated[Literal["list", "prepare", "verify"], tyro.conf.Positional],
        domain: Annotated[str | None, tyro.conf.Positional] = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """List the known domains, prepare one (fetch, check, unpack), or verify a prepared one.

        Args:
            action: what to do
            domain: a name from the list
            json: end with one line of JSON
        """
        if action == "list":
            return lambda: _list_domains(json)
        return lambda: _domain(action, domain, json)

    return parse(command, args, "cyclegan data")()


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
