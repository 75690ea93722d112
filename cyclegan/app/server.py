"""The server: gradio's page behind the gate, /health beside it, and an orderly end."""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import fastapi
import gradio as gr
import psutil
import uvicorn
from fastapi.responses import FileResponse, JSONResponse, Response
from gradio import processing_utils

from cyclegan import __version__
from cyclegan.app.engine import Engine
from cyclegan.app.forgetting import keep_forgetting, keep_little
from cyclegan.app.gate import Gate
from cyclegan.app.limits import Limits
from cyclegan.app.offered import Shelf
from cyclegan.app.page import build_page, look_of_page
from cyclegan.app.runs_tab import COMPARED
from cyclegan.app.service import Service
from cyclegan.app.sessions import Sessions
from cyclegan.app.trainings import Trainings
from cyclegan.errors import BadInput
from cyclegan.reporting.report import REPORT

LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Address:
    """Where the server listens and who may come in.

    Args:
        accounts: names and passwords; empty for everybody.
        hosts: further names that it answers to, such as a reverse proxy's.
        root_path: under which a reverse proxy shows it.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    accounts: dict[str, str] = field(default_factory=dict)
    hosts: Sequence[str] = ()
    root_path: str = ""

    @property
    def is_local(self) -> bool:
        return self.host in LOOPBACK

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"

    @property
    def warning(self) -> str | None:
        """In words, where everybody who can reach this machine may use it."""
        if self.is_local or self.accounts:
            return None
        return (
            f"open on {self.host} without a password: everybody who can reach this machine may upload "
            "pictures, translate and start trainings on it. Add --auth NAME:PASSWORD, or leave --host out."
        )


def serve(
    named: Sequence[Path], runs: Path, address: Address, limits: Limits, say: Callable[[Address], None]
) -> None:
    """Serve until a signal asks to end. Trainings that were started go on.

    Args:
        named: generators and runs to offer besides those in ``runs``.
        say: told once the server listens, with the port that it got for port 0.

    Raises:
        BadInput: what was named is no generator or run, or the address is taken.
    """
    shelf = Shelf(named, runs)
    listening = _listen(address)
    address = replace(address, port=listening.getsockname()[1])
    sessions = Sessions()
    engine = Engine()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        os.environ["GRADIO_TEMP_DIR"] = str(sessions.root)
        # The names of uploads rest on it: nobody can compute another's from the content.
        processing_utils.hash_seed = secrets.token_bytes(32)
        app = application(Service(limits, sessions, engine, shelf, Trainings(runs)), address)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=3,
            forwarded_allow_ips="127.0.0.1,::1",
        )
        logging.getLogger("uvicorn.error").addFilter(_is_news)
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn has ended in order, and passes the signal on
            _Server(config, lambda: say(address)).run(sockets=[listening])
    finally:
        engine.close()
        sessions.close()


def application(service: Service, address: Address) -> Gate:
    """The whole as an ASGI application."""
    blocks = build_page(service)

    @contextlib.asynccontextmanager
    async def while_it_runs(_: fastapi.FastAPI) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(keep_forgetting(blocks, service.sessions))
        yield
        forgetting.cancel()

    app = fastapi.FastAPI(
        title="cyclegan", docs_url=None, redoc_url=None, openapi_url=None, lifespan=while_it_runs
    )
    blocks.queue(max_size=service.limits.waiting, api_open=False)

    @app.get("/health")
    def health() -> JSONResponse:
        memory = psutil.Process().memory_info().rss
        return JSONResponse(
            {
                "status": "ok",
                "version": __version__,
                "waiting": len(blocks._queue),
                "pictures": service.engine.pictures,
                "passes": service.engine.passes,
                "memory_mib": round(memory / 2**20),
            }
        )

    @app.get("/report/{domain}/{run}")
    def report(domain: str, run: str) -> Response:
        return _page(lambda: service.shelf.run(f"{domain}/{run}") / REPORT)

    @app.get("/comparison/{visit}/{result}")
    def comparison(visit: str, result: str) -> Response:
        # Both names are secrets that only who asked for the comparison was told.
        return _page(lambda: service.sessions.root / visit / result / COMPARED)

    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=address.host,
        server_port=address.port,
        max_file_size=service.limits.upload_bytes,
        root_path=address.root_path or None,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        mcp_server=False,
        footer_links=["settings"],
        **look_of_page(),
    )
    keep_little(blocks)
    hosts = None
    if address.is_local:
        hosts = (*LOOPBACK, *(host.lower() for host in address.hosts))
    return Gate(app, service.sessions, service.limits, address.accounts, hosts)


def _page(find: Callable[[], Path]) -> Response:
    try:
        path = find()
    except BadInput as error:
        return JSONResponse({"detail": str(error)}, 404)
    if not path.is_file():
        return JSONResponse({"detail": "this run has no report yet"}, 404)
    # It says itself what it may do: nothing but what it carries.
    return FileResponse(path, media_type="text/html", headers={"cache-control": "no-store"})


class _Server(uvicorn.Server):
    """Says where it is once it listens."""

    def __init__(self, config: uvicorn.Config, say: Callable[[], None]) -> None:
        super().__init__(config)
        self.say = say

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.say()


def _is_news(record: logging.LogRecord) -> bool:
    """Not that a server which ends cuts the lines that pages hold open, each with a stack trace."""
    cut = record.exc_info is not None and record.exc_info[0] is asyncio.CancelledError
    return not cut and not record.getMessage().startswith("Cancel ")


def _listen(address: Address) -> socket.socket:
    """The socket, before anything else is loaded.

    Raises:
        BadInput: the address is taken, or none of this machine's.
    """
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
    except (OSError, OverflowError) as error:
        listening.close()
        raise BadInput(
            f"{address.host}, port {address.port}: cannot be listened on "
            f"({getattr(error, 'strerror', None) or error}); name another --host or --port"
        ) from error
    return listening


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
