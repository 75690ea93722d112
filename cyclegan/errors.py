"""What bad input gets: one line that names the file or the setting, and the remedy."""

import difflib
from collections.abc import Iterable


class BadInput(Exception):
    """Something the user gave cannot be used; the message is the whole story, exit status 2."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A ready clause such as ``; did you mean 'batch_size'?``, or nothing when no name is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""
