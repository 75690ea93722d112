"""What comes in over HTTP, before gradio sees it: who may ask, for what, and with which files."""

import asyncio
import base64
import binascii
import contextlib
import hmac
import json
import re
from collections.abc import Awaitable, Callable, Iterator, MutableMapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cyclegan.app.limits import MIB, Limits
from cyclegan.app.sessions import Sessions

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

# All that the page and gradio's clients ask for. Whatever else gradio answers (proxies to other hosts,
# editors, monitors) is not there.
READ = re.compile(
    r"/(|config/?|health|theme\.css|favicon\.ico|robots\.txt|manifest\.json|(assets|static|svelte)/.+|pwa_icon.*"
    r"|report/.+|comparison/.+"
    r"|gradio_api/(info/?|app_id/?|token/?|startup-events|theme\.css|heartbeat/[\w-]+|queue/(data|status)"
    r"|call/[\w-]+/\w+|upload_progress|login_check/?|user/?|file=.+))"
)
WRITE = re.compile(r"/gradio_api/(upload|queue/join|call/(v2/)?[\w-]+|(run|api)/[\w-]+/?|cancel|reset/?)")
HEARTBEAT = re.compile(r"/gradio_api/heartbeat/([\w-]+)")
MAX_JSON = 4 * MIB
MAX_DEPTH = 40
WRONG_PASSWORD_S = 0.5
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; media-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self' data: blob:; worker-src 'self' blob:; frame-src 'self'; "
    "frame-ancestors 'self'; base-uri 'self'; form-action 'self'; object-src 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)


class Refused(Exception):
    """Not let in: the HTTP status and the reason in a line."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


class Gate:
    """An ASGI application in front of another one.

    Args:
        accounts: names and passwords of who may come in; empty for everybody.
        hosts: the names that the server answers to, without ports; None for any. A web site that lets its
            own name point to this machine is kept out by it.
    """

    def __init__(
        self,
        app: Callable[[Scope, Receive, Send], Awaitable[None]],
        sessions: Sessions,
        limits: Limits,
        accounts: dict[str, str],
        hosts: Sequence[str] | None,
    ) -> None:
        self.app, self.sessions, self.limits = app, sessions, limits
        self.accounts, self.hosts = accounts, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        try:
            receive = await self._checked(scope, receive)
        except Refused as refused:
            return await _answer(send, refused)
        line = HEARTBEAT.fullmatch(scope["path"])
        if line is None:
            return await self.app(scope, receive, _busy_in_words(_with_headers(send)))
        self.sessions.line_opened(line[1])
        try:
            return await self.app(scope, receive, send)
        finally:
            self.sessions.line_closed(line[1])

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        host = headers.get("host", "")
        if self.hosts is not None and _name(host) not in self.hosts:
            raise Refused(421, f"{_name(host)}: this server does not go by that name; see --allow-host")
        known = {"GET": READ, "HEAD": READ, "POST": WRITE}.get(method)
        if known is None or not known.fullmatch(path) or ".." in path.split("/"):
            raise Refused(404, "there is nothing here")
        if path != "/health":
            await self._admit(headers.get("authorization", ""))
        if method != "POST":
            return receive
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            raise Refused(403, f"{origin}: a page of another host may not use this one")
        return await self._body(path, headers, receive)

    async def _admit(self, authorization: str) -> None:
        """HTTP Basic authentication (RFC 7617), the same for the page, its files and programs."""
        if not self.accounts:
            return
        scheme, _, code = authorization.partition(" ")
        name, password = "", ""
        if scheme.lower() == "basic":
            with contextlib.suppress(binascii.Error, UnicodeDecodeError):
                name, _, password = base64.b64decode(code, validate=True).decode().partition(":")
        expected = self.accounts.get(name, "")
        right = hmac.compare_digest(password.encode(), expected.encode())
        if not (right and name in self.accounts):
            if authorization:
                await asyncio.sleep(WRONG_PASSWORD_S)
            raise Refused(401, "a name and a password are needed")

    async def _body(self, path: str, headers: dict[str, str], receive: Receive) -> Receive:
        """The request's body, looked through where it is JSON."""
        is_upload = path == "/gradio_api/upload"
        most = self.limits.upload_bytes + MIB if is_upload else MAX_JSON
        length = headers.get("content-length", "")
        if not length.isdigit():
            raise Refused(411, "send a Content-Length")
        if int(length) > most:
            raise Refused(413, f"{int(length) / MIB:,.0f} MiB: at most {most / MIB:,.0f} MiB at once")
        if is_upload:
            return receive
        body = b""
        while len(body) < int(length):
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refused(400, "the request broke off")
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self._look_through(body)
        messages = [{"type": "http.request", "body": body, "more_body": False}]

        async def again() -> MutableMapping[str, Any]:
            return messages.pop() if messages else await receive()

        return again

    def _look_through(self, body: bytes) -> None:
        try:
            content = json.loads(body) if body else {}
            session = content.get("session_hash") if isinstance(content, dict) else None
            files = list(_files(content, 0))
        except (ValueError, RecursionError) as error:
            raise Refused(400, "the body is not the JSON that gradio's clients send") from error
        session = session if isinstance(session, str) else ""
        if session:
            self.sessions.visit(session)
        for file in files:
            self._check_file(file, session)

    def _check_file(self, file: dict[str, Any], session: str) -> None:
        """Only what was uploaded here may be named; never a path of this machine's, never another's URL."""
        path, url = file.get("path"), file.get("url")
        if not isinstance(path, str) or "\0" in path:
            raise Refused(400, "a file is named by the path that its upload was answered with")
        if re.match(r"\w[\w+.-]+:", path) or (url and "/gradio_api/file=" not in str(url)):
            raise Refused(400, "files are uploaded, not fetched: give no URL")
        try:
            resolved = Path(path).resolve()
            allowed = Path(path).is_absolute() and self.sessions.may_use(session, resolved)
        except (OSError, RuntimeError, ValueError):
            allowed = False
        if not allowed:
            raise Refused(400, f"{Path(path).name}: was not uploaded here")
        if session:
            self.sessions.used(session, resolved)


def _files(content: Any, depth: int) -> Iterator[dict[str, Any]]:
    """Everything in a request that gradio could take for a file."""
    if depth > MAX_DEPTH:
        raise ValueError("too deep")
    if isinstance(content, dict):
        meta = content.get("meta")
        if "path" in content or (isinstance(meta, dict) and meta.get("_type") == "gradio.FileData"):
            yield content
        for value in content.values():
            yield from _files(value, depth + 1)
    elif isinstance(content, list):
        for value in content:
            yield from _files(value, depth + 1)


def _name(host: str) -> str:
    """``Host`` without the port."""
    return re.sub(r":\d*$", "", host).strip("[]").lower()


def _busy_in_words(send: Send) -> Send:
    """gradio's answer past the bound of its queue, said so that a person knows what to do."""
    full = False

    async def sending(message: MutableMapping[str, Any]) -> None:
        nonlocal full
        if message["type"] == "http.response.start" and message["status"] == 503:
            full = True
            await _answer(send, Refused(503, "busy: too many requests wait already; try again in a while"))
        elif not full:
            await send(message)

    return sending


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            given = {name for name, _ in message["headers"]}
            added = [(name, value) for name, value in HEADERS if name not in given]
            message = {**message, "headers": [*message["headers"], *added]}
        await send(message)

    return sending


async def _answer(send: Send, refused: Refused) -> None:
    body = json.dumps({"detail": refused.reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    if refused.status == 401:
        headers.append((b"www-authenticate", b'Basic realm="cyclegan", charset="UTF-8"'))
    if refused.status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
