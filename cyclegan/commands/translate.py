"""cyclegan translate."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput

if TYPE_CHECKING:
    from cyclegan.translation.signing import Signer


def translate(args: list[str]) -> int:
    def command(
        generator: Annotated[Path, tyro.conf.Positional],
        input: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        size: int | None = None,
        quality: int = 95,
        label: bool = True,
        sign_cert: Path | None = None,
        sign_key: Path | None = None,
        sign_tsa: str | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Translate a picture or a folder of pictures.

        Args:
            generator: folder of a saved generator, such as runs/<domain>/<run>/generators/G_AB
            input: a picture, or a folder that is walked recursively
            output: where the translations go; a folder's tree and names are kept
            size: translate at SIZE x SIZE and resize back; default is each picture's own size
            quality: of JPEG and WebP, 1 to 100
            label: say in each file that a machine made it, with which generator, on whose pictures
            sign_cert: sign each file (C2PA) by this chain of certificates, PEM, the signer's own first
            sign_key: the signer's private key (PEM)
            sign_tsa: address of a timestamp authority; without one nothing goes over the network
            json: end with one line of JSON
        """
        return lambda: _translate(
            generator, input, output, size, quality, label, _Signing(sign_cert, sign_key, sign_tsa), json
        )

    return parse(command, args, "cyclegan translate")()


class _Signing(NamedTuple):
    cert: Path | None
    key: Path | None
    tsa: str | None

    def signer(self, pairs: list[tuple[Path, Path]], label: bool) -> "Signer | None":
        """Who signs, if anyone; all that is wrong with it is said before anything starts."""
        if self.cert is None or self.key is None:
            if any(self):
                raise BadInput("signing needs both --sign-cert CHAIN.pem and --sign-key KEY.pem")
            return None
        if not label:
            raise BadInput("--no-label: a signature says what the label says; leave one of them out")
        from cyclegan.translation.signing import Signer

        Signer.refuse_unsignable([target for _, target in pairs])
        return Signer.load(self.cert, self.key, self.tsa)


def _translate(
    generator: Path,
    source: Path,
    target: Path,
    size: int | None,
    quality: int,
    label: bool,
    signing: _Signing,
    as_json: bool,
) -> int:
    if not 1 <= quality <= 100:
        raise BadInput(f"--quality: must be 1 to 100, not {quality}")
    if size is not None and size < 16:
        raise BadInput(f"--size: must be 16 or more, not {size}")
    from rich.progress import Progress

    from cyclegan.translation import Translator
    from cyclegan.translation.folder import plan, translate_files

    pairs = plan(source, target)
    signer = signing.signer(pairs, label)
    translator = Translator.from_pretrained(generator)
    failed = []
    results = translate_files(translator, pairs, size, quality, label, signer)
    with Progress(transient=True, disable=not sys.stderr.isatty()) as bar:
        for item in bar.track(results, total=len(pairs)):
            if item.error is not None:
                failed.append(item)
    done = len(pairs) - len(failed)
    for item in failed:
        print(f"cyclegan translate: {item.error}", file=sys.stderr)
    bare = sum(path.suffix.lower() == ".bmp" for _, path in pairs)
    if label and bare:
        print(f"cyclegan translate: BMP has no place for a label; {bare} go without", file=sys.stderr)
    if as_json:
        errors = {str(item.source): item.error for item in failed}
        print_json({"translated": done, "failed": errors, "output": str(target)})
    else:
        left = f", {len(failed)} could not be (see above)" if failed else ""
        print(f"Translated {done} of {len(pairs)} images into {target}{left}.")
    return 1 if failed else 0
