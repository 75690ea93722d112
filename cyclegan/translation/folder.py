"""Whole folders: the tree is mirrored, one bad file does not stop the others."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cyclegan.errors import BadInput
from cyclegan.images import SUFFIXES, BadImage, list_images
from cyclegan.translation.translator import Translator

if TYPE_CHECKING:
    from cyclegan.translation.signing import Signer


@dataclass(frozen=True)
class Translated:
    """One file's fate: ``error`` says why it was not translated."""

    source: Path
    target: Path
    error: str | None = None


def plan(source: Path, target: Path) -> list[tuple[Path, Path]]:
    """Which file becomes which.

    Args:
        source: a file, or a folder that is walked recursively.
        target: for a file, a file (by its suffix) or a folder; for a folder, a folder.

    Raises:
        BadInput: nothing to translate, or the target would overwrite the source.
    """
    if source.is_file():
        inside = target.is_dir() or not target.suffix
        pairs = [(source, target / source.name if inside else target)]
    else:
        found = list_images(source)
        if not found:
            raise BadInput(f"{source}: has no JPEG, PNG, WebP, TIFF or BMP images")
        if target.resolve().is_relative_to(source.resolve()):
            # Listed before, so that what is written now is not read again next time.
            raise BadInput(f"{target}: lies inside {source}; name a folder outside of it")
        pairs = [(path, target / path.relative_to(source)) for path in found]
    for path, written in pairs:
        if written.suffix.lower() not in SUFFIXES:
            raise BadInput(
                f"{written}: cannot be written as a {written.suffix} file; use {', '.join(SUFFIXES)}"
            )
        if path.resolve() == written.resolve():
            raise BadInput(f"{path}: would be overwritten by its translation; name another output")
    return pairs


def translate_files(
    translator: Translator,
    pairs: list[tuple[Path, Path]],
    size: int | None = None,
    quality: int = 95,
    label: bool = True,
    signer: "Signer | None" = None,
) -> Iterator[Translated]:
    """Translate file by file; each is written whole or not at all.

    Raises:
        BadInput: the output cannot be written, which would be so for every file.
    """
    for source, target in pairs:
        try:
            translator.file(source, target, size, quality, label, signer)
        except BadImage as error:
            yield Translated(source, target, str(error))
        except OSError as error:
            raise BadInput(f"{target}: cannot be written ({error.strerror})") from error
        else:
            yield Translated(source, target)
