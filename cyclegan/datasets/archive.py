"""Zips from strangers: looked through as a whole before anything of them is written."""

import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cyclegan.errors import BadInput

MAX_MEMBERS = 2_000_000
MAX_BYTES = 256 * 2**30
MAX_RATIO = 200  # pictures hardly compress; a member that shrank more than this is a bomb

Member = tuple[zipfile.ZipFile, zipfile.ZipInfo, PurePosixPath]


def safe_members(path: Path, max_members: int = MAX_MEMBERS, max_bytes: int = MAX_BYTES) -> Iterator[Member]:
    """The regular files of a zip, after all of it has been found harmless.

    Raises:
        BadInput: it unpacks to too much, or one of its members would do harm.
        zipfile.BadZipFile: it is no zip, or not a whole one.
    """
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > max_members or sum(m.file_size for m in members) > max_bytes:
            raise BadInput(f"{path}: unpacks to more than {_size(max_bytes)} or {max_members:,} files")
        for member in members:
            _refuse_harm(path, member)
        for member in members:
            if not member.is_dir():
                yield archive, member, PurePosixPath(member.filename)


def _refuse_harm(path: Path, member: zipfile.ZipInfo) -> None:
    name = PurePosixPath(member.filename.replace("\\", "/"))
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
