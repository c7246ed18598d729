"""The outermost layer of the application: every request has an id, is measured, and is logged where that is wanted.

`X-Request-ID` is the client's where it is `[A-Za-z0-9._-]{1,64}`, else made here; it is on every answer and on refused
upgrades, and in every line that is logged meanwhile. Of an address only its template is told, never its query; a
request that no route saw, because none has its address or because it was refused before, is `unknown`.
A WebSocket is measured by its opening and its close, and logged in one line at its end.
"""

from __future__ import annotations

import logging
import re
import time
from secrets import token_hex
from typing import Any, Literal

from litestar.types import ASGIApp, Receive, Send
from uvicorn.protocols.utils import ClientDisconnected

from klines import logs, tracing
from klines.metrics.instruments import METHODS, OTHER, Instruments
from klines.web.connection import EXTENSION
from klines.web.problem import Problem, refuse

UNKNOWN = "unknown"
MAX_LINES = 20
OUR_FAULT = Problem(title="Internal error", status=500, detail="something went wrong on our side", code="internal")

# Closes that are not the client's doing, nor a restart.
FAILED_CLOSES = frozenset({1011, 4008, 4500})

access = logging.getLogger("klines.requests")
logger = logging.getLogger("klines.web")

_SEEN = "klines.seen"
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_NATIVE = {"klines": "/ws/klines/{token}/{interval}", "transactions": "/ws/transactions/{token}"}


def observed(app: ASGIApp, instruments: Instruments, log: Literal["off", "errors", "all"]) -> ASGIApp:
    """Wrap the whole application."""
    lines = _Lines(log)

    async def observe(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        seen = scope[_SEEN] = _Seen(scope, send)
        mark = logs.request_id.set(seen.id)
        try:
            if seen.upgrade:
                await _socket(app, scope, receive, seen, instruments, lines)
            else:
                await _request(app, scope, receive, seen, instruments, lines)
        finally:
            logs.request_id.reset(mark)

    return observe


def routed(app: ASGIApp) -> ASGIApp:
    """Middleware of the framework: tells `observed` which route it found, whoever copied the scope in between."""

    async def told(scope: Any, receive: Receive, send: Send) -> None:
        scope[_SEEN].route = scope["path_template"]
        await app(scope, receive, send)

    return told


class _Seen:
    """What is noticed of one request or socket."""

    __slots__ = ("accepted", "began", "id", "route", "send", "sent", "status", "upgrade")

    def __init__(self, scope: Any, send: Send) -> None:
        self.began = time.perf_counter()
        self.id = _id_of(scope["headers"])
        self.upgrade = scope["type"] == "websocket"
        self.send: Any = send
        self.route = UNKNOWN
        self.status = self.sent = 0
        self.accepted = False

    async def pass_on(self, message: Any) -> None:
        """Send for the application, and look at what it says."""
        kind = message["type"]
        if kind.endswith("http.response.start"):
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
        elif kind == "http.response.body":
            self.sent += len(message.get("body", b""))
        elif kind == "websocket.accept":
            self.accepted = True
        await self.send(message)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.began


async def _request(
    app: ASGIApp, scope: Any, receive: Receive, seen: _Seen, instruments: Instruments, lines: _Lines
) -> None:
    method = scope["method"] if scope["method"] in METHODS else OTHER
    with instruments.serving(), tracing.serving(method, scope["headers"]) as span:
        try:
            await app(scope, receive, seen.pass_on)
        except Exception:
            logger.exception("unexpected error outside the routes")
            if not seen.status:
                await refuse(OUR_FAULT, {}, seen.pass_on, upgrade=False)
        finally:
            seconds, status = seen.seconds, seen.status or 499
            span.answered(f"{method} {seen.route}", seen.route, status)
            instruments.served(seen.route, method, status, seconds, seen.sent)
            if lines.wanted(failed=status >= 500):
                lines.tell(
                    "request",
                    scope,
                    method=method,
                    route=seen.route,
                    status=status,
                    ms=round(seconds * 1000, 1),
                    bytes=seen.sent,
                )


async def _socket(
    app: ASGIApp, scope: Any, receive: Receive, seen: _Seen, instruments: Instruments, lines: _Lines
) -> None:
    kind, route = _stream_of(scope["path"])
    code = 4500
    try:
        await app(scope, receive, _opening(seen, instruments, kind))
        code = 1000
    except ClientDisconnected:
        code = 1006
    finally:
        _ended(scope, seen, instruments, lines, kind, route, code)


def _opening(seen: _Seen, instruments: Instruments, kind: str) -> Send:
    async def send(message: Any) -> None:
        await seen.pass_on(message)
        if message["type"] == "websocket.accept":
            instruments.opened(kind)

    return send


def _ended(scope: Any, seen: _Seen, instruments: Instruments, lines: _Lines, kind: str, route: str, code: int) -> None:
    connection = scope.get("extensions", {}).get(EXTENSION, {}).get("connection")
    if not seen.accepted:
        status = seen.status or 500
        instruments.refused(kind, status)
        if lines.wanted(failed=status == 500):
            lines.tell("upgrade refused", scope, route=route, status=status)
        return
    frames, sent = (connection.sent_frames, connection.sent_bytes) if connection else (0, 0)
    code = (connection and connection.ended) or code
    instruments.closed(kind, code)
    if lines.wanted(failed=code in FAILED_CLOSES):
        lines.tell(
            "socket closed", scope, route=route, code=code, seconds=round(seen.seconds, 1), frames=frames, bytes=sent
        )


class _Lines:
    """The access log: all, or what failed, and of that not more than anybody can read."""

    def __init__(self, log: str) -> None:
        self._log = log
        self._second = 0
        self._told = self._left_out = 0

    def wanted(self, *, failed: bool) -> bool:
        """Whether a line is to be written."""
        if self._log != "errors":
            return self._log == "all"
        if not failed:
            return False
        second = int(time.monotonic())
        if second != self._second:
            if self._left_out:
                access.warning("%d more that failed were left out of this log", self._left_out)
            self._second, self._told, self._left_out = second, 0, 0
        self._told += 1
        self._left_out += self._told > MAX_LINES
        return self._told <= MAX_LINES

    def tell(self, what: str, scope: Any, **fields: str | float) -> None:
        """One line; its fields are fields of JSON too."""
        grant = scope.get("klines.grant")
        fields["client"] = str(scope.get("klines.client") or (scope.get("client") or ("",))[0])
        if grant is not None and grant.key_id:
            fields["key"] = grant.key_id
        told = " ".join(f"{name}={value}" for name, value in fields.items())
        access.info("%s %s", what, told, extra={"event": what, **fields})


def _id_of(headers: list[tuple[bytes, bytes]]) -> str:
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return value.decode("ascii")
    return token_hex(8)


def _stream_of(path: str) -> tuple[str, str]:
    """The kind of a socket, and the template of its address."""
    _, first, *rest = path.split("/")
    if first == "ws" and rest and rest[0] in _NATIVE:
        return rest[0], _NATIVE[rest[0]]
    if first in {"ws", "stream"}:
        return "binance", f"/{first}"
    return OTHER, UNKNOWN
