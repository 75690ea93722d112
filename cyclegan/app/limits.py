"""What strangers may send: how much of it, and that it is what it says, before anything is decoded."""

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cyclegan.datasets.archive import extract, safe_members
from cyclegan.errors import BadInput, shown
from cyclegan.images import SUFFIXES, image_size
from cyclegan.training.saving import disk_is_full

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Of one server.

    Args:
        upload_mib: of one file or drop of files, in MiB; a zip may unpack to four times as much.
        megapixels: of one picture.
        pictures: of one request.
        waiting: requests that wait for their turn; past it the answer is "busy".
    """

    upload_mib: int = 512
    megapixels: float = 50.0
    pictures: int = 500
    waiting: int = 32

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise BadInput(f"--{name.replace('_', '-')}: must be more than 0, not {value}")

    @property
    def upload_bytes(self) -> int:
        return self.upload_mib * MIB

    @property
    def unpacked_bytes(self) -> int:
        return 4 * self.upload_bytes

    @property
    def pixels(self) -> int:
        return int(self.megapixels * 1_000_000)


def check_picture(path: Path, limits: Limits) -> tuple[int, int]:
    """Height and width of an uploaded picture, from its header alone.

    Raises:
        BadInput: too many bytes or pixels, or no picture that we read.
    """
    refuse_large(path, limits)
    try:
        if path.suffix.lower() not in SUFFIXES:
            raise BadInput(f"{path}: is not named as a JPEG, PNG, WebP, TIFF or BMP picture")
        return image_size(path, limits.pixels)
    except BadInput as error:
        raise BadInput(said_of(error, path)) from error


def refuse_large(path: Path, limits: Limits) -> None:
    size = path.stat().st_size
    if size > limits.upload_bytes:
        raise BadInput(
            f"{path.name}: has {size / MIB:,.0f} MiB; uploads may have {limits.upload_mib:,} MiB at most"
        )


def said_of(error: Exception, *paths: Path) -> str:
    """A complaint without the folders of this machine, and with nothing in it that a page could run."""
    text = str(error)
    for path in paths:
        text = text.replace(str(path), path.name)
    return shown(text).replace("<", "‹").replace(">", "›")


def gather(paths: Sequence[Path], folder: Path, limits: Limits) -> list[tuple[Path, str]]:
    """The pictures of a drop, and their names; zips are unpacked into ``folder``.

    Returns:
        Each picture's file and a name of its own, with ``/`` where a zip had folders.

    Raises:
        BadInput: nothing there, too much, or a zip that does not hold.
    """
    found: dict[str, Path] = {}
    for number, path in enumerate(paths):
        if path.suffix.lower() == ".zip":
            inside = unpack(path, folder / str(number), limits)
            prefix = f"{path.stem}/" if len(paths) > 1 else ""
            listed = [(picture, prefix + name) for picture, name in inside]
        else:
            listed = [(path, path.name)]
        for picture, name in listed:
            found[_free(name, found)] = picture
    if not found:
        raise BadInput("no pictures: choose some, or a zip of them")
    if len(found) > limits.pictures:
        raise BadInput(
            f"{len(found):,} pictures: {limits.pictures:,} at most at once; 'cyclegan translate' takes any "
            "number"
        )
    return [(path, name) for name, path in found.items()]


def _free(name: str, taken: dict[str, Path]) -> str:
    """The name, or with a number in it where two pictures have the same."""
    path, number, free = PurePosixPath(name), 2, name
    while free in taken:
        free = str(path.with_name(f"{path.stem}-{number}{path.suffix}"))
        number += 1
    return free


def unpack(path: Path, folder: Path, limits: Limits) -> list[tuple[Path, str]]:
    """The pictures of a zip, written into ``folder``, and their names in the zip.

    Raises:
        BadInput: not a zip, harmful, too large, or without pictures; or there is no room for it here.
    """
    refuse_large(path, limits)
    found = []
    try:
        for archive, member, name in safe_members(path, max_bytes=limits.unpacked_bytes):
            hidden = any(part.startswith((".", "__MACOSX")) for part in name.parts)
            if hidden or name.suffix.lower() not in SUFFIXES:
                continue
            target = folder / f"{len(found):06d}{name.suffix.lower()}"
            target.parent.mkdir(parents=True, exist_ok=True)
            extract(archive, member, target)
            found.append((target, str(name)))
    except BadInput as error:
        raise BadInput(said_of(error, path)) from error
    except (zipfile.BadZipFile, OSError) as error:
        if isinstance(error, OSError) and disk_is_full(error):
            raise BadInput(
                f"{path.name}: the disk of this machine is full; free some space before it is unpacked here"
            ) from error
        raise BadInput(f"{path.name}: is not a whole zip ({said_of(error, path)})") from error
    if not found:
        raise BadInput(f"{path.name}: has no JPEG, PNG, WebP, TIFF or BMP pictures")
    return found
