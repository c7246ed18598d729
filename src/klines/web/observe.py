"""The outermost layer of the application: every request has an id, is measured, and is logged where that is wanted.

`X-Request-ID` is the client's where it is `[A-Za-z0-9._-]{1,64}`, else made here; it is on every answer and on refused
upgrades, and in every line that is logged meanwhile. Of an address only its template is told, never its query; one that
is no route's is `unknown`. A WebSocket is measured by its opening and its close, and logged in one line at its end.
What the server's protocols refuse before there is a request counts too, by its code: they find the `edge` here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Literal

from litestar.types import ASGIApp, Receive, Send
from uvicorn.protocols.utils import ClientDisconnected

from klines import logs, tracing
from klines.metrics.instruments import METHODS, OTHER, Instruments
from klines.web.access_log import AccessLog, Who, who_sent
from klines.web.admission.gate import ROUTE
from klines.web.problem import OUR_FAULT, refuse
from klines.web.starting import lifespan_in_words
from klines.web.transport.connection import EXTENSION, Connection
from klines.web.transport.edge import SEEN, Refused, request_id

UNKNOWN = "unknown"

# Closes that are not the client's doing, nor a restart.
FAILED_CLOSES = frozenset({1011, 4008, 4500})

logger = logging.getLogger("klines.web")

_NATIVE = {"klines": "/ws/klines/{token}/{interval}", "transactions": "/ws/transactions/{token}"}


Share = Callable[[str], str | None]


class Observed:
    """Wraps the whole application; `share` says whose share of the connections a peer's address uses, if anybody's."""

    def __init__(
        self, app: ASGIApp, instruments: Instruments, log: Literal["off", "errors", "all"], share: Share
    ) -> None:
        self._app = app
        self._instruments = instruments
        self._lines = AccessLog(log)
        self.edge = _Edge(share, instruments, self._lines)

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        """One request or socket, or the lifespan."""
        if scope["type"] == "lifespan":
            await lifespan_in_words(self._app, scope, receive, send)
            return
        seen = scope[SEEN] = _Seen(scope, send)
        mark = logs.request_id.set(seen.id)
        try:
            if seen.upgrade:
                await _socket(self._app, scope, receive, seen, self._instruments, self._lines)
            else:
                await _request(self._app, scope, receive, seen, self._instruments, self._lines)
        finally:
            logs.request_id.reset(mark)


class _Edge:
    def __init__(self, share: Share, instruments: Instruments, lines: AccessLog) -> None:
        self.share = share
        self._instruments = instruments
        self._lines = lines

    def refused(self, refused: Refused) -> None:
        self._instruments.turned_away("server", refused.code)
        if self._lines.wanted(failed=refused.status >= HTTPStatus.INTERNAL_SERVER_ERROR):
            who = Who(refused.peer, None)
            self._lines.tell("refused", refused.id, who, status=refused.status, code=refused.code)


def routed(app: ASGIApp) -> ASGIApp:
    """Middleware of the framework: tells `observed` which route it found, whoever copied the scope in between."""

    async def told(scope: Any, receive: Receive, send: Send) -> None:
        scope[SEEN].route = scope["path_template"]
        await app(scope, receive, send)

    return told


class _Seen:
    """What is noticed of one request or socket."""

    __slots__ = ("accepted", "began", "id", "route", "send", "sent", "status", "upgrade")

    def __init__(self, scope: Any, send: Send) -> None:
        self.began = time.perf_counter()
        self.id = request_id(scope["headers"])
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
    app: ASGIApp, scope: Any, receive: Receive, seen: _Seen, instruments: Instruments, lines: AccessLog
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
            route = scope.get(ROUTE, seen.route)
            span.answered(f"{method} {route}", route, status)
            instruments.served(route, method, status, seconds, seen.sent)
            if lines.wanted(failed=status >= 500):
                lines.tell(
                    "request",
                    seen.id,
                    who_sent(scope),
                    method=method,
                    route=route,
                    status=status,
                    ms=round(seconds * 1000, 1),
                    bytes=seen.sent,
                )


async def _socket(
    app: ASGIApp, scope: Any, receive: Receive, seen: _Seen, instruments: Instruments, lines: AccessLog
) -> None:
    kind, route = _stream_of(scope["path"])
    connection: Connection | None = scope.get("extensions", {}).get(EXTENSION, {}).get("connection")
    code = 4500
    try:
        await app(scope, receive, _opening(seen, instruments, kind))
        code = 1000
    except ClientDisconnected:
        code = 1006
    finally:
        if not seen.accepted:
            _not_opened(scope, seen, instruments, lines, kind, route, code, connection)
        else:
            ended = partial(_ended, _Opened(seen, kind, route, who_sent(scope)), instruments, lines, connection, code)
            if connection is not None and connection.outlives:
                connection.outlive(ended)
            else:
                ended()


def _opening(seen: _Seen, instruments: Instruments, kind: str) -> Send:
    async def send(message: Any) -> None:
        await seen.pass_on(message)
        if message["type"] == "websocket.accept":
            instruments.opened(kind)

    return send


def _not_opened(
    scope: Any, seen: _Seen, instruments: Instruments, lines: AccessLog, kind: str, route: str, code: int,
    connection: Connection | None,
) -> None:  # fmt: skip
    status = seen.status or (connection.refused if connection else 0) or (499 if code == 1006 else 500)
    instruments.refused(kind, status)
    if lines.wanted(failed=status == HTTPStatus.INTERNAL_SERVER_ERROR):
        lines.tell("upgrade refused", seen.id, who_sent(scope), route=route, status=status)


class _Opened:
    """What is kept of a socket while it is open: little."""

    __slots__ = ("began", "id", "kind", "route", "who")

    def __init__(self, seen: _Seen, kind: str, route: str, who: Who) -> None:
        self.began, self.id = seen.began, seen.id
        self.kind, self.route, self.who = kind, route, who


def _ended(
    opened: _Opened, instruments: Instruments, lines: AccessLog, connection: Connection | None, code: int
) -> None:
    frames, sent = (connection.sent_frames, connection.sent_bytes) if connection else (0, 0)
    code = (connection and connection.ended) or code
    instruments.closed(opened.kind, code)
    if lines.wanted(failed=code in FAILED_CLOSES):
        seconds = round(time.perf_counter() - opened.began, 1)
        told: dict[str, str | float] = {"route": opened.route, "code": code, "seconds": seconds}
        lines.tell("socket closed", opened.id, opened.who, **told, frames=frames, bytes=sent)


def _stream_of(path: str) -> tuple[str, str]:
    """The kind of a socket, and the template of its address."""
    _, first, *rest = path.split("/")
    if first == "ws" and rest and rest[0] in _NATIVE:
        return rest[0], _NATIVE[rest[0]]
    if first in {"ws", "stream"}:
        return "binance", f"/{first}"
    return OTHER, UNKNOWN
