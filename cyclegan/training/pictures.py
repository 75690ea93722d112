"""Which pictures a run was trained on, in short, so that a resume can say when they are others."""

import contextlib
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

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
