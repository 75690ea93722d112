"""Zips from strangers: looked through as a whole before anything of them is written."""

import contextlib
import errno
import lzma
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cyclegan.errors import BadInput

MAX_MEMBERS = 2_000_000
MAX_BYTES = 256 * 2**30
MAX_RATIO = 200  # pictures hardly compress; a member that shrank more than this is a bomb

# What zipfile and its decompressors raise at damaged bytes, and at a kind of packing that they do not know.
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, ValueError, OverflowError)

Member = tuple[zipfile.ZipFile, zipfile.ZipInfo, PurePosixPath]


def safe_members(path: Path, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES) -> Iterator[Member]:
    """The regular files of a zip, after all of it has been found harmless.

    Raises:
        BadInput: it unpacks to too much, or one of its members would do harm.
        zipfile.BadZipFile: it is no zip, or not a whole one.
    """
    with _told_as_bad_zip("its directory"):
        opened = zipfile.ZipFile(path)
    with opened as archive:
        members = archive.infolist()
        if len(members) > max_members or sum(m.file_size for m in members) > max_bytes:
            raise BadInput(f"{path}: unpacks to more than {_size(max_bytes)} or {max_members:,} files")
        # "./" and "." name the folder itself.
        members = [m for m in members if _path(m).parts]
        for member in members:
            _refuse_harm(path, member)
        for member in members:
            if not member.is_dir():
                yield archive, member, PurePosixPath(member.filename)


def extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    """Write one member to ``target``.

    Raises:
        zipfile.BadZipFile: it is damaged, or packed as no decompressor here knows; names it.
        OSError: ``target`` cannot be written.
    """
    # zipfile checks the CRC, and stops at the size that the directory declares.
    with (
        target.open("wb") as file,
        _told_as_bad_zip(f"the member {member.filename!r}"),
        archive.open(member) as source,
    ):
        shutil.copyfileobj(source, file)


@contextlib.contextmanager
def _told_as_bad_zip(what: str) -> Iterator[None]:
    try:
        yield
    except (*_DAMAGE, OSError) as error:
        # bz2 raises it without a number, a seek to a place that cannot be with EINVAL; others are the disk's.
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise
        raise zipfile.BadZipFile(f"{what}: {str(error) or 'ends too early'}") from error


def _path(member: zipfile.ZipInfo) -> PurePosixPath:
    return PurePosixPath(member.filename.replace("\\", "/"))


def _refuse_harm(path: Path, member: zipfile.ZipInfo) -> None:
    name = _path(member)
    if name.is_absolute() or ".." in name.parts or ":" in name.parts[0]:
        raise BadInput(
            f"{path}: the member {member.filename!r} would climb out of its folder; nothing was unpacked"
        )
    if stat.S_ISLNK(member.external_attr >> 16):
        raise BadInput(f"{path}: the member {member.filename!r} is a link; nothing was unpacked")
    if member.file_size > MAX_RATIO * max(member.compress_size, 1024):
        raise BadInput(
            f"{path}: the member {member.filename!r} unpacks to {member.file_size:,} bytes from "
            f"{member.compress_size:,}; that is a bomb, nothing was unpacked"
        )
    if member.flag_bits & 1:
        raise BadInput(f"{path}: the member {member.filename!r} is encrypted; zip it without a password")


def _size(count: int) -> str:
    return f"{count / 2**30:.3g} GiB" if count >= 2**30 else f"{count / 2**20:.3g} MiB"
