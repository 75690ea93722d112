"""The commands: one verb each, no logic of its own. Heavy imports live inside the verbs."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclegan import __version__
from cyclegan.errors import BadInput, nearest

Arguments = list[str]
Deed = Callable[[], int]


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exit status 0, 1 for a failure on the way, 2 for bad input."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help", "help"):
        print(_overview())
        return
    if args[0] == "--version":
        print(f"cyclegan {__version__}")
        return
    debug = "--debug" in args
    try:
        sys.exit(_verb(args[0])([arg for arg in args[1:] if arg != "--debug"]))
    except BadInput as error:
        if debug:
            raise
        print(f"{_prog(args)}: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        if debug:
            raise
        print("cyclegan: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _prog(args: Sequence[str]) -> str:
    return f"cyclegan {args[0]}" if args[0] in VERBS else "cyclegan"


def _verb(name: str) -> Callable[[Arguments], int]:
    if name not in VERBS:
        raise BadInput(f"there is no command {name!r}{nearest(name, VERBS)} (cyclegan --help)")
    return VERBS[name][1]


def _overview() -> str:
    lines = [f"cyclegan {__version__}: two folders of pictures in, a translator between them out.", ""]
    lines += [f"  cyclegan {usage:<38} {says}" for usage, _, says in VERBS.values()]
    lines += ["", "'cyclegan COMMAND --help' lists the options of each; --json ends with one line of JSON;"]
    return "\n".join([*lines, "--debug shows where an error came from."])


def train(args: Arguments) -> int:
    from cyclegan.training.command import settings_from

    settings, options = settings_from(args)
    if options.dry_run:
        from cyclegan.config import to_yaml

        if options.json:
            _print_json(settings.model_dump(mode="json"))
        else:
            print(to_yaml(settings), end="")
        return 0
    from cyclegan.training.loop import TrainingFailed
    from cyclegan.training.loop import train as run_training

    try:
        result = run_training(settings)
    except TrainingFailed as error:
        print(f"cyclegan train: {error}", file=sys.stderr)
        return 1
    if not result.is_main:
        return 0
    if options.json:
        _print_json(result.summary())
        return 0
    print(f"Done: {result.step:,} steps, {result.images_seen:,} images in {result.minutes:.1f} minutes.")
    if result.upload is not None:
        print(f"W&B kept the run offline, for there is no account here. Upload it: {result.upload}")
    for folder in result.translated:
        print(f"Held-out images, translated: {folder}")
    print(f"Grid: {result.grid}")
    command = (_program(), "translate", str(result.run.generator("G_AB")), "INPUT", "OUTPUT")
    print(f"Translate a folder: {' '.join(command)}")
    return 0


def _program() -> str:
    """How this command can be called from here."""
    if shutil.which("cyclegan"):
        return "cyclegan"
    beside = Path(sys.executable).with_name("cyclegan")
    return os.path.relpath(beside) if beside.exists() else f"{sys.executable} -m cyclegan"


def translate(args: Arguments) -> int:
    import tyro

    from cyclegan.arguments import parse

    def command(
        generator: Annotated[Path, tyro.conf.Positional],
        input: Annotated[Path, tyro.conf.Positional],
        output: Annotated[Path, tyro.conf.Positional],
        size: int | None = None,
        quality: int = 95,
        json: bool = False,
    ) -> Deed:
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
        _print_json({"translated": done, "failed": errors, "output": str(target)})
    else:
        left = f", {len(failed)} could not be (see above)" if failed else ""
        print(f"Translated {done} of {len(pairs)} images into {target}{left}.")
    return 1 if failed else 0


def evaluate(args: Arguments) -> int:
    import tyro

    from cyclegan.arguments import parse

    def command(
        generator_or_run: Annotated[Path, tyro.conf.Positional],
        data: str | None = None,
        direction: Literal["AtoB", "BtoA"] | None = None,
        json: bool = False,
    ) -> Deed:
        """Judge a generator on held-out images.

        Args:
            generator_or_run: folder of a saved generator, or of a run
            data: a domain's name, or a folder with trainA, trainB, testA, testB; default is what the
                generator was trained on
            direction: which generator of a run; default AtoB
            json: end with one line of JSON
        """
        return lambda: _evaluate(generator_or_run, data, direction, json)

    return parse(command, args, "cyclegan evaluate")()


def _evaluate(path: Path, data: str | None, direction: str | None, as_json: bool) -> int:
    from cyclegan.evaluation.command import evaluate_folder

    report = evaluate_folder(path, data, direction)
    if as_json:
        _print_json(report.as_json())
    else:
        report.show()
    return 0


def data(args: Arguments) -> int:
    import tyro

    from cyclegan.arguments import parse

    def command(
        action: Annotated[Literal["list", "prepare", "verify"], tyro.conf.Positional],
        domain: Annotated[str | None, tyro.conf.Positional] = None,
        json: bool = False,
    ) -> Deed:
        """List the known domains, prepare one (fetch, check, unpack), or verify a prepared one.

        Args:
            action: what to do
            domain: a name from the list
            json: end with one line of JSON
        """
        if action == "list":
            return lambda: _list_domains(json)
        return lambda: _domain(action, domain, json)

    return parse(command, args, "cyclegan data")()


def _domain(action: str, domain: str | None, as_json: bool) -> int:
    """Prepare or verify one domain."""
    if domain is None:
        raise BadInput(f"{action}: name a DOMAIN ('cyclegan data list' shows them)")
    from cyclegan.datasets.prepare import count_images, prepare, verify

    counts = verify(domain) if action == "verify" else count_images(prepare(domain))
    if as_json:
        _print_json({"domain": domain, "counts": counts, "good": True})
    else:
        said = ", ".join(f"{split} {count}" for split, count in counts.items())
        print(f"{domain}: {'all good' if action == 'verify' else 'prepared'}; {said}")
    return 0


def _list_domains(as_json: bool) -> int:
    from rich.console import Console
    from rich.table import Table

    from cyclegan.datasets.cards import domain_folder, list_cards, load_card
    from cyclegan.datasets.prepare import is_prepared

    cards = {name: load_card(name) for name in list_cards()}
    if as_json:
        ready = {name: is_prepared(domain_folder(name)) for name in cards}
        entries = [{"domain": n, "prepared": ready[n], **c.model_dump(mode="json")} for n, c in cards.items()]
        _print_json({"domains": entries})
        return 0
    table = Table("domain", "A to B", "source", "here")
    for name, card in cards.items():
        here = "yes" if is_prepared(domain_folder(name)) else ""
        table.add_row(name, card.title, card.source.kind, here)
    Console().print(table)
    return 0


def _print_json(values: dict[str, Any]) -> None:
    print(json.dumps(values), flush=True)


VERBS: dict[str, tuple[str, Callable[[Arguments], int], str]] = {
    "train": ("train [DOMAIN] [options]", train, "train both generators on a domain or on own folders"),
    "translate": ("translate GENERATOR INPUT OUTPUT", translate, "translate a picture or a folder"),
    "evaluate": ("evaluate GENERATOR_OR_RUN", evaluate, "judge a generator on held-out images"),
    "data": ("data list|prepare|verify [DOMAIN]", data, "see, fetch and check the known domains"),
}
