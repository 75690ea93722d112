"""What bad input gets: one line that names the file or the setting, and the remedy."""

import difflib
import importlib
import re
from collections.abc import Iterable
from types import ModuleType

# CUDA, HIP, XPU and MPS; torch and ONNX Runtime on a CPU; Gaudi; cuDNN without room for its workspace.
_OUT_OF_MEMORY = (
    "out of memory",
    "allocate memory",
    "Allocation failed",
    "CUDNN_STATUS_NOT_SUPPORTED",
    "could not create a primitive",  # oneDNN, which sets kernels up when they are first needed
)


class BadInput(Exception):
    """Something the user gave cannot be used; the message is the whole story, exit status 2."""


class Failed(Exception):
    """A command that cannot go on; the message says what stays good. Exit status 1."""


def shown(message: object) -> str:
    """A message as a terminal may have it: what file names hold of control characters is spelled out.

    Lists stay lists: a new line that begins with two spaces is ours.
    """
    parts = re.split(r"(\n  )", str(message))
    return "".join(part if part == "\n  " else "".join(map(_spelled, part)) for part in parts)


def _spelled(letter: str) -> str:
    return letter if letter.isprintable() else letter.encode("unicode_escape", "surrogatepass").decode()


def nearest(word: str, known: Iterable[str]) -> str:
    """A ready clause such as ``; did you mean 'batch_size'?``, or nothing when no name is near."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {found[0]!r}?" if found else ""


def out_of_memory(error: BaseException) -> bool:
    """Whether a device or the machine had no more memory, in the words of any backend."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without torch
        return True
    # ONNX Runtime's errors are no RuntimeError; ours quote file names.
    return not isinstance(error, BadInput | Failed) and any(words in str(error) for words in _OUT_OF_MEMORY)


def optional(package: str, extra: str, purpose: str) -> ModuleType:
    """A package that only an extra brings.

    Raises:
        BadInput: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise BadInput(f"{purpose} needs {package}: pip install 'cyclegan[{extra}]'") from error
