"""cyclegan translate."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput


def translate(args: list[str]) -> int:
    def command(
        generator: Annotated[Path, tyro.conf.Positional],
        input: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        size: int | None = None,
        quality: int = 95,
        json: bool = False,
    ) -> Callable[[], int]:
        """Translate a picture or a folder of pictures.

        Args:
            generator: folder of a saved generator, such as runs/<domain>/<run>/generators/G_AB
            input: a picture, or a folder that is walked recursively
            output: where the translations go; a folder's tree and names are kept
            size: translate at SIZE x SIZE and resize back; default is each picture's own size
            quality: of JPEG and WebP, 1 to 100
            json: end with one line of JSON
        """
        return lambda: _translate(generator, input, output, size, quality, json)

    return parse(command, args, "cyclegan translate")()


def _translate(
    generator: Path, source: Path, target: Path, size: int | None, quality: int, as_json: bool
) -> int:
    if not 1 <= quality <= 100:
        raise BadInput(f"--quality: must be 1 to 100, not {quality}")
    if size is not None and size < 16:
        raise BadInput(f"--size: must be 16 or more, not {size}")
    from rich.progress import Progress

    from cyclegan.translation import Translator
    from cyclegan.translation.folder import plan, translate_files

    pairs = plan(source, target)
    translator = Translator.from_pretrained(generator)
    failed = []
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:
        for item in bar.track(translate_files(translator, pairs, size, quality), total=len(pairs)):
            if item.error is not None:
                failed.append(item)
    done = len(pairs) - len(failed)
    for item in failed:
        print(f"cyclegan translate: {item.error}", file=sys.stderr)
    if as_json:
        errors = {str(item.source): item.error for item in failed}
        print_json({"translated": done, "failed": errors, "output": str(target)})
    else:
        left = f", {len(failed)} could not be (see above)" if failed else ""
        print(f"Translated {done} of {len(pairs)} images into {target}{left}.")
    return 1 if failed else 0
