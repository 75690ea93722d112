"""cyclegan stylize."""

import functools
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cyclegan.arguments import parse
from cyclegan.commands.translate import carry_out, signer_of
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput
from cyclegan.stylization import Optimization, Progress, Style, fast_network, read_styles
from cyclegan.stylization.stylizer import (
    LICENCES,
    SYSTEMS,
    Images,
    Method,
    Stylizer,
    facts,
    networks_of,
    other_digests,
    style_digests,
    weights_digest,
)
from cyclegan.translation.options import FolderOptions, Format, Tiling

if TYPE_CHECKING:
    import torch

    from cyclegan.translation import Translator
    from cyclegan.translation.provenance import Label

EVERY = 10
BOTH_TAKE = {"size", "keep_colours"}
DEFAULTS = Optimization()


@dataclass(frozen=True)
class _Asked:
    """What the command line says of the styles and the method."""

    method: Method
    pictures: tuple[Path, ...]
    weights: tuple[float, ...]
    masks: tuple[Path, ...]
    style_masks: tuple[Path, ...]
    strength: float
    options: Optimization
    tiling: Tiling
    preview: Path | None
    every: int
    batch_size: int | None

    def refuse_others(self) -> None:
        """Options of the one method that the other does not know are not passed over.

        Raises:
            BadInput: names the first.
        """
        if self.every < 1:
            raise BadInput(f"every: must be 1 or more, not {self.every}")
        if self.preview is not None and self.method == "fast":
            raise BadInput(
                "--preview: is for --method optimize; the fast one has nothing to show before it is done"
            )
        if self.every != EVERY and self.method == "fast":
            raise BadInput("--every: is for --method optimize; the fast one takes no steps")
        if self.method == "fast" and self.tiling != Tiling() and (self.masks or self.options.size):
            raise BadInput("--tile, --tiling: with --masks or --size pictures go whole; leave them out")
        if self.method == "fast" and self.tiling.method == "exact":
            raise BadInput(
                "--tiling exact: cannot follow the fast network layer by layer; use --tiling dense, "
                "or leave it out"
            )
        if self.method == "optimize":
            if self.batch_size not in (None, 1):
                raise BadInput(
                    "--batch-size: is for --method fast; optimize does pictures one by one, so leave it out"
                )
            if self.strength != 1:
                raise BadInput("--strength: is for --method fast; use --style-weight with optimize")
            if self.tiling != Tiling():
                raise BadInput(
                    "--tile, --tiling: are for --method fast; optimize takes pictures whole (--size)"
                )
            return
        for field in fields(Optimization):
            given = getattr(self.options, field.name) != getattr(DEFAULTS, field.name)
            if given and field.name not in BOTH_TAKE:
                raise BadInput(f"--{field.name.replace('_', '-')}: is for --method optimize, not for fast")


def stylize(args: list[str]) -> int:
    def command(
        content: Annotated[Path, tyro.conf.Positional],
        style: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        options: Annotated[Optimization, tyro.conf.arg(name="")] = DEFAULTS,
        method: Method = "optimize",
        more_styles: tuple[Path, ...] = (),
        weights: tuple[float, ...] = (),
        masks: tuple[Path, ...] = (),
        style_masks: tuple[Path, ...] = (),
        strength: float = 1.0,
        preview: Path | None = None,
        every: int = EVERY,
        format: Format | None = None,
        quality: int = 95,
        batch_size: int | None = None,
        overwrite: bool = False,
        label: bool = True,
        sign_cert: Path | None = None,
        sign_key: Path | None = None,
        sign_tsa: str | None = None,
        tile: int | Literal["auto", "off"] = "auto",
        tiling: Literal["dense", "exact", "naive"] | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Give a picture, or each of a folder, the look of another. Killed and called again, it goes on.

        Args:
            content: a picture, a folder (walked recursively), a quoted glob, or a .txt file with one path a
                line
            style: the picture whose look is wanted
            output: where the results go, as with cyclegan translate
            options: of the optimization
            method: optimize changes each picture step by step (Gatys et al. 2016), minutes each; fast is one
                pass of a network (Ghiasi et al. 2017)
            more_styles: further style pictures
            weights: of the style pictures, the first one's first; default equal
            masks: for each style picture one that is white where in the content it goes
            style_masks: for each style picture one that is white where its look is taken from (optimize)
            strength: 0 to 1, from the content's own style to that of the picture (fast)
            preview: a file that shows the picture at work, every EVERY steps; one that is there is replaced
                if it is an earlier preview of this picture, any other with --overwrite
            every: steps from one line of progress, and one preview, to the next
            format: of the outputs; default is each picture's own
            quality: of JPEG and WebP, 1 to 100
            batch_size: pictures of one shape at once (fast); default 1 on CPUs, 16 on GPUs
            overwrite: do all again, and replace what lies there
            label: say in each file, the preview too, that a machine made it, how, and in the style of which
                pictures
            sign_cert: sign each file (C2PA) by this chain of certificates, PEM, the signer's own first
            sign_key: the signer's private key (PEM)
            sign_tsa: address of a timestamp authority; without one nothing goes over the network
            tile: side of the tiles in pixels; auto cuts what memory cannot hold (fast)
            tiling: how tiles are made to agree (fast): dense or naive, as with cyclegan translate; not exact
            json: end with one line of JSON
        """
        pictures, signing = (style, *more_styles), (sign_cert, sign_key, sign_tsa)

        def run() -> int:
            asked = _Asked(
                method,
                pictures,
                weights,
                masks,
                style_masks,
                strength,
                options,
                Tiling(tile, tiling),
                preview,
                every,
                batch_size,
            )
            asked.refuse_others()
            # A batch of optimizations is no faster, and its first picture would wait for its last.
            at_once = 1 if method == "optimize" else batch_size
            folder = FolderOptions(None, format, quality, at_once, overwrite, label, signer_of(*signing))
            return _stylize(content, output, asked, folder, json)

        return run

    return parse(command, args, "cyclegan stylize")()


def _stylize(content: Path, target: Path, asked: _Asked, options: FolderOptions, as_json: bool) -> int:
    from cyclegan.translation.folder import FolderTranslation
    from cyclegan.translation.plan import plan
    from cyclegan.translation.shares import Share

    share = Share.of_environment()
    planned = plan(content, target, options.format)
    sources = (*asked.pictures, *asked.masks, *asked.style_masks)
    _refuse_to_destroy(sources, (output for _, output in planned))
    for option, given, does in (
        ("--masks", asked.masks, "belong to"),
        ("--preview", asked.preview, "shows"),
    ):
        if given and len(planned) > 1:
            raise BadInput(f"{option}: {does} one picture, and {content} has {len(planned)}")
    if asked.preview is not None:
        _check_preview(asked.preview, sources, *planned[0], options.overwrite)
    styles = read_styles(asked.pictures, asked.weights, asked.masks, asked.style_masks)
    translator = _translator(asked, styles, share.device(), planned, options.label)
    return carry_out(FolderTranslation(translator, planned, options, share), target, as_json, "stylize")


def _refuse_to_destroy(sources: Sequence[Path], outputs: Iterable[Path]) -> None:
    """No output may be a picture that is read for its style, or a mask.

    Raises:
        BadInput: names the first.
    """
    # By what the system says of the files, for one may be named in two ways.
    read = {where: source for source in sources if (where := _place(source)) is not None}
    for output in outputs:
        where = _place(output)
        if where in read:
            raise BadInput(
                f"{output}: would be overwritten, and is read for the style ({read[where]}); "
                "name another output"
            )


def _place(path: Path) -> tuple[int, int] | None:
    from cyclegan.images import identity_of

    try:
        return identity_of(path)
    except OSError:
        return None


def _check_preview(
    preview: Path, sources: Sequence[Path], content: Path, output: Path, overwrite: bool
) -> None:
    """It may lie where nothing is, and where an earlier one of the same picture is.

    Raises:
        BadInput: something else would be overwritten, or it is named as no picture.
    """
    if preview.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
        raise BadInput(f"--preview: {preview} is not named as a .png, .jpg or .webp file")
    if preview.resolve() in {path.resolve() for path in (*sources, content, output)}:
        raise BadInput(f"--preview: {preview} is one of the pictures given, or the result; name another file")
    if preview.exists() and not overwrite and not _is_preview_of(content, preview):
        raise BadInput(
            f"--preview: {preview} exists, and is no preview of {content}; name another file, or replace it "
            "with --overwrite"
        )


def _is_preview_of(content: Path, path: Path) -> bool:
    from cyclegan.images import BadImage, read_metadata
    from cyclegan.translation.provenance import read_label

    try:
        label = read_label(read_metadata(path).xmp) or {}
        return label.get("input_sha256") == sha256_of(content) and "step" in label.get("settings", {})
    except (BadImage, OSError, ValueError):
        return False


def _translator(
    asked: _Asked,
    styles: Sequence[Style],
    device: "torch.device",
    planned: Sequence[tuple[Path, Path]],
    labelled: bool,
) -> "Translator":
    """What carries a stylization through the same files, labels and records as a translation."""
    from cyclegan.translation import Translator
    from cyclegan.translation.backends import TorchBackend
    from cyclegan.translation.provenance import Label

    options, method = asked.options, asked.method
    digest, used = weights_digest(method), networks_of(method, options)
    system = ", then ".join(SYSTEMS[each] for each in used)
    licences = dict(chain.from_iterable(LICENCES[each].items() for each in used))
    label = Label.of_stylization(system, digest, licences, style_digests(styles))
    if method == "optimize":
        reporter = _Reporter(asked, label if labelled else None, planned)
        backend = Stylizer(styles, options, device, reporter)
        choices = options.record()
    else:
        network = fast_network(styles, asked.strength, options.keep_colours, options.size)
        # Tiles begin at multiples; the network itself takes pictures of any size.
        tiles = Images(multiple_of=network.multiple_of)
        backend = TorchBackend(network, tiles, device, "fp32", digest)
        choices = {
            "strength": asked.strength,
            "size": options.size,
            "keep_colours": options.keep_colours,
        }
    record = facts(method, styles, {**choices, **other_digests(method, options)})
    return Translator(backend, Images(), label=label, tiling=asked.tiling, facts=record)


class _Reporter:
    """Lines of progress on standard error, and the preview."""

    def __init__(self, asked: _Asked, label: "Label | None", planned: Sequence[tuple[Path, Path]]) -> None:
        self.every, self.preview, self.label = asked.every, asked.preview, label
        self.planned, self.begun = planned, 0

    @functools.cached_property
    def _content_sha256(self) -> str:
        """Of the one picture that a preview is of."""
        ((content, _),) = self.planned
        return sha256_of(content)

    def __call__(self, progress: Progress) -> None:
        self.begun += progress.step == 1
        if progress.step % self.every and progress.step not in (1, progress.steps):
            return
        terms = ", ".join(f"{name} {value:.4g}" for name, value in progress.losses.items() if value)
        size = f"{progress.width}x{progress.height}"
        which = f"picture {self.begun} of {len(self.planned)}, " if len(self.planned) > 1 else ""
        print(
            f"{which}step {progress.step}/{progress.steps} at {size}: loss {progress.loss:.5g} ({terms})",
            file=sys.stderr,
        )
        if self.preview is not None:
            self._show(self.preview, progress)

    def _show(self, path: Path, progress: Progress) -> None:
        from cyclegan.images import from_tensor, write_image
        from cyclegan.metadata import Metadata

        metadata = Metadata()
        if self.label is not None:
            step = {"step": progress.step, "steps": progress.steps}
            metadata = self.label.stamp(metadata, self._content_sha256, step)
        try:
            write_image(path, from_tensor(progress.image[0]), metadata=metadata)
        except OSError as error:
            raise BadInput(f"--preview: {path} cannot be written ({error.strerror})") from error
