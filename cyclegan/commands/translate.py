"""cyclegan translate."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput, shown
from cyclegan.translation.options import FolderOptions, Format, Tiling

if TYPE_CHECKING:
    from cyclegan.translation.backends import BackendName, Precision
    from cyclegan.translation.folder import FolderTranslation, Summary
    from cyclegan.translation.signing import Signer


def translate(args: list[str]) -> int:
    def command(
        generator: Annotated[Path, tyro.conf.Positional],
        input: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        size: int | None = None,
        format: Format | None = None,
        quality: int = 95,
        batch_size: int | None = None,
        overwrite: bool = False,
        label: bool = True,
        sign_cert: Path | None = None,
        sign_key: Path | None = None,
        sign_tsa: str | None = None,
        backend: Literal["auto", "torch", "onnx", "openvino"] = "auto",
        precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto",
        tile: int | Literal["auto", "off"] = "auto",
        tiling: Literal["dense", "exact", "naive"] | None = None,
        reference: Path | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Translate a picture or a folder of pictures. Killed and called again, it goes on.

        Args:
            generator: folder of a saved generator, such as runs/<domain>/<run>/generators/G_AB; an exported
                .onnx file; or owner/name on the Hugging Face Hub
            input: a picture, a folder (walked recursively), a quoted glob such as 'photos/**/*.jpg', or a
                .txt file with one path a line
            output: where the translations go; a folder's tree and names are kept, and manifest.jsonl says
                how each came to be
            size: translate at SIZE x SIZE and resize back; default is each picture's own size
            format: of the outputs; default is each picture's own
            quality: of JPEG and WebP, 1 to 100
            batch_size: pictures of one shape at once, fewer where they are large; default 1 on CPUs, 16 on
                GPUs
            overwrite: do all again, and replace what lies there
            label: say in each file that a machine made it, with which generator, on whose pictures
            sign_cert: sign each file (C2PA) by this chain of certificates, PEM, the signer's own first
            sign_key: the signer's private key (PEM)
            sign_tsa: address of a timestamp authority; without one nothing goes over the network
            backend: what computes; auto is the fastest that is installed for as many pictures
            precision: of the arithmetic; auto is the fastest here, fp32 is exact
            tile: side of the tiles in pixels; auto cuts what memory cannot hold, off nothing
            tiling: how tiles are made to agree: dense (statistics shared by all), exact (the whole image's
                result, layer by layer), naive (not at all); given, it is used for every picture
            reference: a picture whose style the translations get, for generators trained with
                --generator.style reference
            json: end with one line of JSON
        """
        signing = (sign_cert, sign_key, sign_tsa)

        def options() -> FolderOptions:
            return FolderOptions(size, format, quality, batch_size, overwrite, label, signer_of(*signing))

        return lambda: _translate(
            generator, input, output, options(), backend, precision, Tiling(tile, tiling), reference, json
        )

    return parse(command, args, "cyclegan translate")()


def signer_of(cert: Path | None, key: Path | None, tsa: str | None) -> "Signer | None":
    """Who signs, if anyone; all that is wrong with it is said before anything starts."""
    if cert is None or key is None:
        if cert or key or tsa:
            raise BadInput("signing needs both --sign-cert CHAIN.pem and --sign-key KEY.pem")
        return None
    from cyclegan.translation.signing import Signer

    return Signer.load(cert, key, tsa)


def _translate(
    generator: Path,
    source: Path,
    target: Path,
    options: FolderOptions,
    backend: "BackendName",
    precision: "Precision",
    tiling: Tiling,
    reference: Path | None,
    as_json: bool,
) -> int:
    from cyclegan.translation.choosing import open_for
    from cyclegan.translation.folder import FolderTranslation
    from cyclegan.translation.plan import plan
    from cyclegan.translation.shares import Share

    share = Share.of_environment()
    planned = plan(source, target, options.format)
    translator = open_for(planned, share, options.overwrite, generator, backend, precision, tiling, reference)
    return carry_out(FolderTranslation(translator, planned, options, share), target, as_json)


def carry_out(work: "FolderTranslation", target: Path, as_json: bool, verb: str = "translate") -> int:
    """Have it all done and say what came of it; the exit status.

    Args:
        target: as the user named it.
        verb: the command, as its complaints begin.
    """
    _go_through(work)
    if work.summary is None:  # another process speaks for all
        return 0
    for error in work.summary.failed.values():
        print(shown(f"cyclegan {verb}: {error}"), file=sys.stderr)
    bare = sum(output.lower().endswith(".bmp") for _, output in work.plan.names)
    if work.options.label and bare:
        print(f"cyclegan {verb}: BMP has no place for a label; {bare} go without", file=sys.stderr)
    if as_json:
        backend = work.translator.backend
        computed = {"backend": backend.name, "precision": backend.precision}
        said = {"failed": work.summary.failed, "output": str(target), **computed}
        print_json({**_figures(work.summary), **said})
    else:
        print(_sentence(work.summary, target, verb))
    return 1 if work.summary.failed else 0


def _go_through(work: "FolderTranslation") -> None:
    """Have it all done, with a bar and images/s where a terminal shows them."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = sys.stderr.isatty() and work.share.leads
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, transient=True, disable=not shown) as bar:
        task = bar.add_task("", total=len(work), speed="")
        started, translated = time.monotonic(), 0
        for count, item in enumerate(work, 1):
            translated += not item.kept and item.error is None
            speed = translated / (time.monotonic() - started)
            bar.update(task, completed=count, speed=f"{speed:.1f} images/s")


def _figures(summary: "Summary") -> dict[str, float]:
    rate = summary.translated / summary.seconds if summary.seconds else 0.0
    return {"translated": summary.translated, "kept": summary.kept, "images_per_s": float(f"{rate:.3g}")}


def _sentence(summary: "Summary", target: Path, verb: str) -> str:
    count = summary.translated + summary.kept + len(summary.failed)
    speed, rate = "", _figures(summary)["images_per_s"]
    if rate:
        speed = f" at {rate:g} images/s" if rate >= 1 else f" at {1 / rate:.3g} s an image"
    parts = [f"{verb.capitalize()}d {summary.translated} of {count} images into {target}{speed}"]
    if summary.kept:
        parts.append(f"{summary.kept} were done before")
    if summary.failed:
        parts.append(f"{len(summary.failed)} could not be (see above)")
    return ", ".join(parts) + "."
