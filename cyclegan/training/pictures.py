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
from cyclegan.datasets.licences import UNKNOWN, allowed_list, is_allowed
from cyclegan.errors import BadInput
from cyclegan.training.checkpoint import Progress

Rights = dict[str, dict[str, str]]  # ``licences`` and ``attribution``, by side
Pictures = dict[str, tuple[int, str]]  # by side: how many, and a digest of their names and sizes


def pictures_of(sides: Mapping[str, Sequence[Path]]) -> Pictures:
    """Counts and digests of both sides' files; folders may move, what is in the files is not read."""
    return {side: (len(paths), _digest(paths)) for side, paths in sides.items()}


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.blake2b(digest_size=12)
    for path in paths:
        digest.update(os.fsencode(path.name))
        with contextlib.suppress(OSError):  # of a file that is gone the name is all there is
            digest.update(f"\0{path.stat().st_size}\n".encode())
    return digest.hexdigest()


def changed(then: Mapping[str, Sequence[object]] | None, now: Pictures) -> str | None:
    """One line on what is not as it was; ``then`` is None in checkpoints from before this was kept."""
    words = []
    for side, (count, digest) in now.items():
        before = list((then or {}).get(side, (count, digest)))
        if before[0] != count:
            words.append(f"{count} of {side} where there were {before[0]}")
        elif before[1] != digest:
            words.append(f"other files of {side}, by their names and sizes")
    if not words:
        return None
    return (
        f"the pictures have changed since the checkpoint: {', '.join(words)}; the run goes on with those "
        "that are there, and no longer as the run never stopped would"
    )


def rights_of(domain: Domain) -> Rights:
    return {"licences": domain.licences, "attribution": domain.attribution}


def with_earlier(domain: Domain, progress: Progress, now: Pictures, required: str | None) -> Domain:
    """The domain, under the licences of what the run learned from before as well, if that was other pictures.

    Args:
        progress: of the checkpoint that the run goes on from.
        now: today's pictures.
        required: ``require_license``.

    Raises:
        BadInput: earlier pictures are not under a licence that is required.
    """
    if not changed(progress.pictures, now):
        return domain
    earlier = progress.rights or {"licences": {}, "attribution": {}}
    licences = {side: earlier["licences"].get(side, UNKNOWN) for side in domain.licences}
    if required is not None:
        allowed = allowed_list(required.split(","))
        for side, licence in licences.items():
            if licence == UNKNOWN or not is_allowed(licence, allowed):
                raise BadInput(
                    f"require_license: before, the run learned from pictures of {side} under {licence}, and "
                    f"that stays in its weights; allowed: {', '.join(allowed)}; begin a new run"
                )
    return replace(domain, earlier_licences=licences, earlier_attribution=earlier["attribution"])
