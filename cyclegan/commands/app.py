"""cyclegan app."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from cyclegan.allocation import share_heaps
from cyclegan.arguments import parse, print_json
from cyclegan.errors import BadInput, optional

if TYPE_CHECKING:
    from cyclegan.app.server import Address


def app(args: list[str]) -> int:
    def command(
        generators_or_runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (),
        host: str = "127.0.0.1",
        port: int = 7860,
        auth: tuple[str, ...] = (),
        allow_host: tuple[str, ...] = (),
        root_path: str = "",
        upload_mib: int = 512,
        megapixels: float = 50.0,
        pictures: int = 500,
        waiting: int = 32,
        open: bool = True,
        json: bool = False,
    ) -> Callable[[], int]:
        """Open a page on this machine to translate, train and look at runs, and serve it to programs.

        Args:
            generators_or_runs: saved generators' folders, runs, or folders of runs, offered besides those
                in runs/
            host: where to listen; 127.0.0.1 is this machine alone, 0.0.0.0 every network that it is in
            port: likewise; 0 takes a free one
            auth: NAME:PASSWORD of who may come in, or a file of such lines; without it everybody may who
                can reach the server
            allow_host: names under which a reverse proxy on this machine shows the page
            root_path: path under which it does, such as /cyclegan
            upload_mib: MiB that one upload may have
            megapixels: that one picture may have
            pictures: that one request may have
            waiting: requests that may wait; past it the answer is that the server is busy
            open: open the page in a browser, where there is one
            json: say where it listens in one line of JSON
        """
        return lambda: _app(
            generators_or_runs,
            lambda: _address(host, port, auth, allow_host, root_path),
            {"upload_mib": upload_mib, "megapixels": megapixels, "pictures": pictures, "waiting": waiting},
            open and not json,
            json,
        )

    return parse(command, args, "cyclegan app")()


def _app(
    named: tuple[Path, ...],
    address_of: Callable[[], "Address"],
    limits: dict[str, float],
    show: bool,
    as_json: bool,
) -> int:
    share_heaps()
    import cyclegan.app  # noqa: F401 - before gradio

    optional("gradio", "app", "cyclegan app")
    from cyclegan.app.limits import Limits
    from cyclegan.app.server import serve

    def say(address: "Address") -> None:
        if address.warning:
            print(f"cyclegan app: {address.warning}", file=sys.stderr)
        if as_json:
            print_json({"url": address.url})
            return
        print(f"Open {address.url} in a browser; Ctrl-C ends it, trainings go on.", flush=True)
        if show and address.is_local and sys.stdout.isatty():
            import webbrowser

            webbrowser.open(address.url)

    serve(named, Path("runs"), address_of(), Limits(**limits), say)
    return 0


def _address(
    host: str, port: int, auth: tuple[str, ...], hosts: tuple[str, ...], root_path: str
) -> "Address":
    from cyclegan.app.server import Address

    accounts: dict[str, str] = {}
    for given in auth:
        lines = [given]
        if ":" not in given:
            try:
                lines = Path(given).read_text(encoding="utf-8").split("\n")
            except (OSError, UnicodeDecodeError) as error:
                raise BadInput(
                    f"--auth: {given} is neither NAME:PASSWORD nor a file of such lines"
                ) from error
        for line in filter(None, map(str.strip, lines)):
            name, colon, password = line.partition(":")
            if not (name and colon and password):
                raise BadInput("--auth: takes NAME:PASSWORD, neither of them empty")
            accounts[name] = password
    return Address(host, port, accounts, hosts, root_path)
