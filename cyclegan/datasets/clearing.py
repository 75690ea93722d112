"""What a training asks of the rights in its pictures: before they are fetched, and before it begins."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from cyclegan.config import TrainSettings
from cyclegan.datasets.audit import STYLE, Audit, read_files, sources_of
from cyclegan.datasets.cards import MadeSource, load_card
from cyclegan.datasets.domain import Clearance, Domain
from cyclegan.datasets.licences import UNKNOWN, allowed_list, joined
from cyclegan.errors import BadInput


def spelled(settings: TrainSettings) -> TrainSettings:
    """Settings whose ``require_license`` is as SPDX spells it."""
    if settings.require_license is None:
        return settings
    allowed = allowed_list(settings.require_license.split(","))
    return settings.model_copy(update={"require_license": ",".join(allowed)})


def ask_card(settings: TrainSettings) -> None:
    """Ask before a domain is fetched or made whether its card is under the licences that are required.

    Raises:
        BadInput: it is not, or an identifier is none.
    """
    if settings.require_license is None:
        return
    allowed, data = allowed_list(settings.require_license.split(",")), settings.data
    if settings.domain is None or data.root is not None or None not in (data.a, data.b):
        return  # own folders, which have none
    card = load_card(settings.domain)
    sources = sources_of(card)
    objection = Audit(settings.domain, sources, {}).objection(allowed)
    if objection is None and isinstance(card.source, MadeSource):  # whose pictures say nothing themselves
        objection = next((source.unclear for source in sources if source.licence is None), None)
    if objection is not None:
        raise BadInput(f"require_license: {objection}")


def cleared(domain: Domain, required: str | None, styles: Mapping[str, Path]) -> Domain:
    """The domain with what an audit found, if all of it, the held-out images too, is so licensed.

    Args:
        required: SPDX identifiers, comma-separated, one of which each picture must be under; None refuses
            nothing, and only the pictures for the style are looked at.
        styles: by side a picture, of the domain's own or another, that the training takes the style from.

    Raises:
        BadInput: names the side or the first file that is not, or an identifier that is none.
    """
    own = {path.resolve() for path in chain(domain.train_a, domain.train_b, domain.test_a, domain.test_b)}
    strange = {side: path for side, path in styles.items() if path.resolve() not in own}
    if required is None:
        return _with_styles(domain, strange) if strange else domain
    allowed = allowed_list(required.split(","))
    audit = audit_domain(domain, strange)
    # The training itself refuses files that cannot be decoded, or leaves them out with --data.skip-bad.
    if (objection := audit.objection(allowed, skip_bad=True)) is not None:
        raise BadInput(f"require_license: {objection}")
    return replace(domain, clearance=Clearance(allowed, audit.licences(), audit.attribution()))


def _with_styles(domain: Domain, styles: Mapping[str, Path]) -> Domain:
    """The domain, its sides under the licences too of pictures that only lend their style."""
    audit = Audit(domain.name, (), read_files({f"{STYLE}{side}": [path] for side, path in styles.items()}))
    licences, attribution = domain.licences, domain.attribution
    for split, (file,) in audit.splits.items():
        side, known = split[-1], None
        if file.refusal is None and not file.rights.unread:
            known = audit.licence(split, file)
        if known is None or licences[side] == UNKNOWN:
            licences[side] = UNKNOWN
        else:
            licences[side] = joined((licences[side], known))
        if names := [name for name in (attribution.get(side), *file.holders) if name]:
            attribution[side] = "; ".join(dict.fromkeys(names))
    return replace(domain, clearance=Clearance((), licences, attribution))


def audit_domain(domain: Domain, styles: Mapping[str, Path]) -> Audit:
    """Of a run's pictures, those held out among them, and those that only lend their style."""
    paths = {
        "trainA": domain.train_a,
        "trainB": domain.train_b,
        "testA": domain.test_a,
        "testB": domain.test_b,
        **{f"{STYLE}{side}": [path] for side, path in styles.items()},
    }
    return Audit(domain.name, sources_of(domain.card), read_files(paths))
