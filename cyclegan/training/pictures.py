"""Which pictures a run was trained on, in short, so that a resume can say when they are others.

What weights learned from stays in them: the licences of earlier pictures bind as those of today's do.
"""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from cyclegan.datasets.domain import Domain
from cyclegan.datasets.licences import UNKNOWN, allowed_list, is_allowed, stated_licence
from cyclegan.datasets.store import ImageStore
from cyclegan.errors import BadInput
from cyclegan.training.checkpoint import Progress

Rights = dict[str, dict[str, str]]  # ``licences`` and ``attribution``, by side
Pictures = dict[str, tuple[int, str]]  # by side, and by styleA and styleB: how many, and a digest
_STYLE = "style"


def pictures_of(stores: Mapping[str, ImageStore], styles: Mapping[str, Path]) -> Pictures:
    """Counts and digests of both sides' files, by their names and sizes, for folders may move.

    Args:
        styles: by side the picture that the training takes the style from, if any; it is known by its bytes.
    """
    found = {side: (len(store.paths), _digest(store.paths)) for side, store in stores.items()}
    return found | {f"{_STYLE}{side}": (1, _bytes_of(path)) for side, path in styles.items()}


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        digest.update(os.fsencode(path.name))
        with contextlib.suppress(OSError):  # of a file that is gone the name is all there is
            digest.update(f"\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _bytes_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()
    return ""  # whoever learns from it says that it cannot be read


def changed(then: Mapping[str, Sequence[object]] | None, now: Pictures) -> str | None:
    """One line on what is not as it was; ``then`` is None in checkpoints from before this was kept."""
    words = _changes(then, now)
    if not words:
        return None
    return (
        f"the pictures have changed since the checkpoint: {', '.join(words.values())}; the run goes on with "
        "those that are there, and no longer as the run never stopped would"
    )


def _changes(then: Mapping[str, Sequence[object]] | None, now: Pictures) -> dict[str, str]:
    """In words, by the side whose pictures or style are not as they were."""
    if then is None:
        return {}
    words: dict[str, list[str]] = {}
    for name in dict.fromkeys((*now, *then)):
        before, today = list(then.get(name, ())), list(now.get(name, ()))
        if before == today:
            continue
        side = name[-1]
        if name.startswith(_STYLE):
            said = f"another picture for the style of {side}"
        elif before and today and before[0] != today[0]:
            said = f"{today[0]} of {side} where there were {before[0]}"
        else:
            said = f"other files of {side}, by their names and sizes"
        words.setdefault(side, []).append(said)
    return {side: ", ".join(said) for side, said in words.items()}


def note(progress: Progress, now: Pictures, domain: Domain) -> None:
    """Keep with how far a run has come what it learns from, and what it learned from before."""
    progress.pictures = now
    progress.rights = {"licences": domain.licences, "attribution": domain.attribution}
    progress.earlier = {"licences": domain.earlier_licences, "attribution": domain.earlier_attribution}


def with_earlier(domain: Domain, progress: Progress, now: Pictures, required: str | None) -> Domain:
    """The domain, under the licences of all that the run learned from before and that is no more there.

    Args:
        progress: of the checkpoint that the run goes on from.
        now: today's pictures.
        required: ``require_license``.

    Raises:
        BadInput: earlier pictures are not under a licence that is required.
    """
    earlier = _earlier(progress, now)
    if required is not None:
        allowed = allowed_list(required.split(","))
        for side, licence in earlier["licences"].items():
            known = stated_licence(licence)
            if known is None or not is_allowed(known, allowed):
                raise BadInput(
                    f"require_license: before, the run learned from pictures of {side} under {licence}, and "
                    f"that stays in its weights; allowed: {', '.join(allowed)}; begin a new run"
                )
    return replace(domain, earlier_licences=earlier["licences"], earlier_attribution=earlier["attribution"])


def _earlier(progress: Progress, now: Pictures) -> Rights:
    """What is kept of earlier pictures; of a side that has others today, all that was learned from."""
    till_then = progress.rights or {"licences": {}, "attribution": {}}
    # Checkpoints from before ``earlier`` was kept do not tell what of it was there before.
    before = till_then if progress.earlier is None else progress.earlier
    found: Rights = {key: dict(before[key]) for key in ("licences", "attribution")}
    for side in _changes(progress.pictures, now):
        found["licences"][side] = till_then["licences"].get(side, UNKNOWN)
        if names := till_then["attribution"].get(side):
            found["attribution"][side] = names
    return found
