"""From the words on the command line to the verb that they name, and its failures in one line."""

import importlib
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence

from cyclegan import __version__
from cyclegan.errors import BadInput, Failed, nearest, shown

# A verb's usage and what it does; it lives in commands/<verb>.py, whose imports only it pays for.
VERBS = {
    "train": ("train [DOMAIN] [options]", "train both generators on a domain or on own folders"),
    "translate": ("translate GENERATOR INPUT OUTPUT", "translate a picture or a folder"),
    "stylize": ("stylize CONTENT STYLE OUT", "give pictures the look of another one"),
    "inspect": ("inspect FILE ...", "show how a picture came to be, and whether that holds"),
    "convert": ("convert FILE OUT", "make a generator's folder from somebody's .pth"),
    "evaluate": ("evaluate GENERATOR_OR_RUN", "judge a generator on held-out images"),
    "compare": ("compare RUN [RUN ...]", "put runs side by side: settings, figures, pictures"),
    "report": ("report RUN_OR_RUNS", "make report.html of a run, or an index of all runs"),
    "export": ("export GENERATOR OUT.onnx|OUT.pt2", "write a generator for other programs"),
    "app": ("app [GENERATOR_OR_RUNS ...]", "open a page to do all of it with a mouse, or over HTTP"),
    "data": ("data list|prepare|verify|audit [NAME]", "see, fetch and check domains and their licences"),
}

SHARED = ("translate", "stylize")  # verbs of which several processes do one folder together


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command; exit status 0, 1 for a failure on the way, 2 for bad input."""
    args = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in args
    try:
        status = _run(args)
    except (BadInput, Failed) as error:
        if debug:
            raise
        print(shown(f"{_prog(args)}: {error}"), file=sys.stderr)
        sys.exit(2 if isinstance(error, BadInput) else 1)
    except KeyboardInterrupt:
        if debug:
            raise
        print("cyclegan: interrupted", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output went away, as `head` does; nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if debug:
            raise
        sys.exit(_system_refused(_prog(args), error))
    else:
        if status is not None:
            sys.exit(status)


def _run(args: Sequence[str]) -> int | None:
    """The exit status of a command; None where words about the commands were all that was asked for."""
    try:
        if not args or args[0] in ("-h", "--help", "help"):
            print(_overview())
            return None
        if args[0] == "--version":
            print(f"cyclegan {__version__}")
            return None
        if args[0] in SHARED:
            _compute_as_alone(os.environ)
        return _verb(args[0])([arg for arg in args[1:] if arg != "--debug"])
    finally:
        sys.stdout.flush()  # that a reader who went away is met here, and not at the interpreter's end


def _compute_as_alone(environment: MutableMapping[str, str]) -> None:
    """Before torch is loaded, which asks for these once: as many threads as a process alone would have.

    Launchers set fewer, torchrun for each of several processes, accelerate launch for one on a CPU too. But
    sums depend on the number of threads, and what a picture becomes must not depend on how many share the
    work. Threads that wait have to sleep where there are several processes, or they would keep the cores
    from those that work: measured, it costs nothing.
    """
    several = environment.get("WORLD_SIZE", "1") != "1"
    if several or "ACCELERATE_MIXED_PRECISION" in environment:  # which its launcher sets each time
        environment.pop("OMP_NUM_THREADS", None)
    if several:
        environment["OMP_WAIT_POLICY"] = "passive"


def _system_refused(prog: str, error: OSError) -> int:
    """What no command foresaw; a file that it names is taken for input that cannot be."""
    name = "" if error.filename is None else str(error.filename)
    name = name if len(name) <= 200 else f"{name[:100]}...{name[-97:]}"
    where = f"{name}: cannot be used " if name else "stopped "
    print(shown(f"{prog}: {where}({error.strerror or error}); --debug shows where"), file=sys.stderr)
    return 2 if name else 1


def _prog(args: Sequence[str]) -> str:
    return f"cyclegan {args[0]}" if args[0] in VERBS else "cyclegan"


def _verb(name: str) -> Callable[[list[str]], int]:
    if name not in VERBS:
        raise BadInput(f"there is no command {name!r}{nearest(name, VERBS)} (cyclegan --help)")
    return getattr(importlib.import_module(f"cyclegan.commands.{name}"), name)


def _overview() -> str:
    lines = [f"cyclegan {__version__}: two folders of pictures in, a translator between them out.", ""]
    lines += [f"  cyclegan {usage:<38} {says}" for usage, says in VERBS.values()]
    lines += ["", "'cyclegan COMMAND --help' lists the options of each; --json ends with one line of JSON;"]
    return "\n".join([*lines, "--debug shows where an error came from."])
