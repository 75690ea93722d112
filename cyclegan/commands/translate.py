"""cyclegan translate."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput

if TYPE_CHECKING:
    from cyclegan.translation.backends import BackendName, Precision


def translate(args: list[str]) -> int:
    def command(
        generator: Annotated[Path, tyro.conf.Positional],
        input: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        size: int | None = None,
        quality: int = 95,
        backend: Literal["auto", "torch", "onnx", "openvino"] = "auto",
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
        json: bool = False,
    ) -> Callable[[], int]:
        """Translate a picture or a folder of pictures.

        Args:
            generator: folder of a saved generator, such as runs/<domain>/<run>/generators/G_AB; an exported
                .onnx file; or owner/name on the Hugging Face Hub
            input: a picture, or a folder that is walked recursively
            output: where the translations go; a folder's tree and names are kept
            size: translate at SIZE x SIZE and resize back; default is each picture's own size
            quality: of JPEG and WebP, 1 to 100
            backend: what computes; auto is the fastest that is installed for as many pictures
            precision: of the arithmetic; auto is the fastest here, fp32 is exact
            json: end with one line of JSON
        """
        return lambda: _translate(generator, input, output, size, quality, backend, precision, json)

    return parse(command, args, "cyclegan translate")()


def _translate(
    generator: Path,
    source: Path,
    target: Path,
    size: int | None,
    quality: int,
    backend: "BackendName",
    precision: "Precision",
    as_json: bool,
) -> int:
    if not 1 <= quality <= 100:
        raise BadInput(f"--quality: must be 1 to 100, not {quality}")
    if size is not None and size < 16:
        raise BadInput(f"--size: must be 16 or more, not {size}")
    from rich.progress import Progress

    from cyclegan.translation import Translator
    from cyclegan.translation.backends import pick_backend
    from cyclegan.translation.folder import plan, translate_files

    pairs = plan(source, target)
    if backend == "auto":
        backend = pick_backend(generator, precision, len(pairs))
    translator = Translator.from_pretrained(generator, None, backend, precision)
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
        computed = {"backend": translator.backend.name, "precision": translator.backend.precision}
        print_json({"translated": done, "failed": errors, "output": str(target), **computed})
    else:
        left = f", {len(failed)} could not be (see above)" if failed else ""
        print(f"Translated {done} of {len(pairs)} images into {target}{left}.")
    return 1 if failed else 0
