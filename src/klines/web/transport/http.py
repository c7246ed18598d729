"""HTTP connections before any upgrade: what one of them may take, in bytes, in time and in requests at once.

What this adds to uvicorn's protocol, of which the server makes one object per connection:

- The target has at most 8 KiB, the head of a request (its line and fields) 40 KiB: 414 and 431 while it still arrives.
- A new connection begins within `BEGIN` seconds, a head is complete `HEAD` after its first byte and a body `BODY` after
  its head, whether or not a route reads it: else 408.
- At most `MAX_PIPELINED` requests wait behind one that is served; then no more are taken, and the last answer closes.
- There is `Room` for so many connections, and of each client; one more has `KEPT` seconds to ask for its health, and
  hears 503 or 429 for everything else, or before it says anything.

Refusals have a problem as their body where no other answer is under way. They end our half of the connection and
listen for a moment, as a reset would take the answer from a peer that still sends. The application's `Edge` is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar, cast

import httptools
from uvicorn.config import Config
from uvicorn.server import ServerState

from klines.errors import KlinesError
from klines.web.admission.gate import AUTHORITY, MAX_HEADERS, MAX_TARGET, authority_of
from klines.web.problem import Problem, told
from klines.web.transport.abort import reset
from klines.web.transport.bare import response
from klines.web.transport.edge import Refused, edge_of, request_id
from klines.web.transport.joined import Joined
from klines.web.transport.room import Place, room_of
from klines.web.transport.taken import Taken

MAX_HEAD = 40 * 1024
MAX_PIPELINED = 16
# Of a body that comes after its answer, and of what comes after the last answer.
MAX_LEFTOVER = 64 * 1024 * 1024
MAX_LATE = 1024 * 1024


class Http(Taken):
    """One connection until it is upgraded; times in seconds."""

    BEGIN: ClassVar[float] = 10.0
    HEAD: ClassVar[float] = 10.0
    KEPT: ClassVar[float] = 2.0
    BODY: ClassVar[float] = 12.0
    LINGER: ClassVar[float] = 1.0

    def __init__(self, config: Config, server_state: ServerState, *of_server: Any, **named: Any) -> None:
        super().__init__(config, server_state, *of_server, **named)
        self.url, self.headers = b"", []
        self._room = room_of(server_state)
        self._edge = edge_of(config)
        self._place: Place | None = None
        self._over = self._in_body = self._astray = False
        # Bytes of the head that arrives, or of a body's framing since its last piece; and of what nobody reads.
        self._fed = self._unread = 0
        self._timed = ""
        self._timer: asyncio.TimerHandle | None = None

    # Called by the transport.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._room.is_out_of_files(len(self.connections)):
            self._over = True
            reset(self.transport)
            return
        try:
            self._place = place = self._room.take(self._edge.share(self._peer), len(self.connections))
        except KlinesError as error:
            self._refuse(*told(error))
        else:
            late = self.transport.close if place.refusal is None else self._turn_away
            self._arm("begin", self._patience(self.BEGIN), late)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._leave()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        while data and not self._over:
            piece, data = data[: MAX_HEAD - self._fed], data[MAX_HEAD - self._fed :]
            self._feed(piece)
        if data:
            self._unread += len(data)
            if self._unread > MAX_LATE:
                reset(self.transport)

    # Called by the parser.
    def on_url(self, url: bytes) -> None:
        if len(self.url) <= MAX_TARGET:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) <= MAX_HEADERS:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED or len(self.headers) > MAX_HEADERS:
            raise OverflowError("too many requests at once, or fields")
        if self._place is not None and not self._place.is_for(self.url):
            self._astray = True
            raise PermissionError("there is no place for this")
        if not self.url.startswith(b"/"):
            cast(Any, self.scope)[AUTHORITY] = authority_of(self.url)
        super().on_headers_complete()
        # An upgrade makes no cycle.
        if self.cycle is not None and self.cycle.transport is self.transport:
            self.cycle.transport = cast(asyncio.Transport, Joined(self.transport, self.cycle))
        self._disarm()
        if self._place is not None and self._place.refusal is not None:
            self.cycle.keep_alive = False
        self._in_body, self._fed = True, 0

    def on_body(self, body: bytes) -> None:
        self._fed = 0
        if self.cycle.response_complete:
            self._unread += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._disarm()
        self._in_body, self._fed, self._unread = False, 0, 0

    # Called by uvicorn's own parts.
    def handle_websocket_upgrade(self) -> None:
        self._over = True
        self._leave()
        super().handle_websocket_upgrade()
        # The parser and we hold each other, and the request: a kibibyte of every socket until the garbage is collected.
        del self.parser, self.scope, self.headers

    def _feed(self, piece: bytes) -> None:
        """Parse a piece that is at most the rest of a head, and look at where it leads."""
        self._fed += len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
        except httptools.HttpParserError:
            if not self._has_too_much():
                self._end(400, "request_invalid", "this is not HTTP/1.1")
        else:
            if not self._has_too_much():
                self._look()

    def _has_too_much(self) -> bool:
        """Whether the head that is arriving, or what frames a body, is more than there may be; then it has ended.

        So it has when its place is kept for something else.
        """
        if self._astray and self._place is not None and self._place.refusal is not None:
            self._end_with(*told(self._place.refusal))
        elif self._fed and not self._in_body and len(self.url) > MAX_TARGET:
            self._end(414, "uri_too_long", f"the target has more than {MAX_TARGET} bytes")
        elif self._fed >= MAX_HEAD or (self._fed and len(self.headers) > MAX_HEADERS):
            detail = f"at most {MAX_HEADERS} header fields, and {MAX_HEAD} bytes with the request line, or of trailers"
            self._end(431, "headers_too_large", detail)
        return self._over

    def _look(self) -> None:
        if self._unread > MAX_LEFTOVER:
            reset(self.transport)
        elif self._in_body and self._timed != "body":
            late = "body_too_slow", f"the body took longer than {self.BODY:g} s"
            self._arm("body", self.BODY, self._end, 408, *late)
        elif self._fed and not self._in_body and self._timed != "head":
            late = "head_too_slow", f"the request line and header fields took longer than {self.HEAD:g} s"
            self._arm("head", self._patience(self.HEAD), self._end, 408, *late)

    def _end(self, status: int, code: str, detail: str) -> None:
        """Take nothing more: answer with a problem where it is the turn of what is wrong, and close."""
        self._end_with(Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code), {})

    def _end_with(self, problem: Problem, headers: dict[str, str]) -> None:
        cycle = self.cycle
        self._over = True
        self._disarm()
        if self.pipeline or (cycle is not None and not cycle.response_complete and not self._in_body):
            self._end_after_answers()
        elif cycle is None or not self._in_body:
            self._refuse(problem, headers)
        elif cycle.response_complete:
            self._close()
        else:
            started = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
            if started:
                reset(self.transport)
            else:
                self._refuse(problem, headers)

    def _end_after_answers(self) -> None:
        if self._in_body:
            # The last of them will never have its body.
            reset(self.transport)
        else:
            self.cycle.keep_alive = False

    def _refuse(self, problem: Problem, headers: dict[str, str]) -> None:
        name = request_id(self.headers)
        self.transport.write(response(problem, headers, name))
        self._close()
        self._edge.refused(Refused(problem.status, problem.code, name, self._peer))

    def _turn_away(self) -> None:
        if self._place is not None and self._place.refusal is not None:
            self._refuse(*told(self._place.refusal))

    def _patience(self, seconds: float) -> float:
        return seconds if self._place is None or self._place.refusal is None else min(self.KEPT, seconds)

    @property
    def _peer(self) -> str:
        return self.client[0] if self.client else ""

    def _close(self) -> None:
        self._over = True
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm("close", self.LINGER, reset, self.transport)

    def _arm(self, timed: str, seconds: float, then: Callable[..., object], *arguments: object) -> None:
        self._disarm()
        self._timed = timed
        self._timer = self.loop.call_later(seconds, lambda: then(*arguments))

    def _disarm(self) -> None:
        self._timed = ""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _leave(self) -> None:
        self._disarm()
        self.stop_watching()
        if self._place is not None:
            self._room.leave(self._place)
            self._place = None
