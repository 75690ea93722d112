"""cyclegan evaluate."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import tyro

from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput


def evaluate(args: list[str]) -> int:
    def command(
        generator_or_run: Annotated[Path, tyro.conf.Positional],
        data: str | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        networks: tuple[Literal["vgg19", "inception", "lpips"], ...] = ("vgg19",),
        images: int | None = None,
        json: bool = False,
    ) -> Callable[[], int]:
        """Judge a generator on held-out images, beside the untranslated inputs and real images.

        Args:
            generator_or_run: folder of a saved generator, of a run, or of a run's generators/best
            data: a domain's name, or a folder with trainA, trainB, testA, testB; default is what the
                generator was trained on
            direction: which generator of a run; default AtoB
            networks: what judges; vgg19 always does, inception (FID and KID as in papers) and lpips are
                fetched once
            images: judge on so many of the held-out images, evenly spread; default is all of them
            json: end with one line of JSON
        """
        return lambda: _evaluate(generator_or_run, data, direction, networks, images, json)

    return parse(command, args, "cyclegan evaluate")()


def _evaluate(
    path: Path,
    data: str | None,
    direction: str | None,
    networks: tuple[str, ...],
    images: int | None,
    as_json: bool,
) -> int:
    if images is not None and images < 2:
        raise BadInput(f"--images: two at least, not {images}")
    from cyclegan.evaluation.command import evaluate_folder

    report = evaluate_folder(path, data, direction, networks, images)
    # Kept before it is shown: whoever reads may have gone, as `| head` does.
    try:
        report.keep()
        _refresh(report.generator)
    except OSError as error:
        print(f"cyclegan evaluate: not kept in {report.generator} ({error.strerror})", file=sys.stderr)
    if as_json:
        print_json(report.as_json())
    else:
        report.show()
    return 0


def _refresh(generator: Path) -> None:
    """The report of the run whose last generator it is says what was found; one of no run has none."""
    from cyclegan.reporting.report import is_run, write_report

    run = generator.resolve().parents[1]  # RUN/generators/G_AB
    if not is_run(run):
        return
    try:
        write_report(run)
    except (OSError, BadInput) as error:
        print(f"cyclegan evaluate: {run}/report.html is not refreshed ({error})", file=sys.stderr)
