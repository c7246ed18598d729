"""HTTP connections before any upgrade: what one of them may take, in bytes, in time and in requests at once.

What this adds to uvicorn's protocol, of which the server makes one object per connection:

- The target has at most 8 KiB, the head of a request (its line and fields) 40 KiB: 414 and 431 while it still arrives.
- A new connection begins within `BEGIN` seconds, a head is complete `HEAD` after its first byte and a body `BODY` after
  its head, whether or not a route reads it: else 408.
- An answer is taken at `LEAST` bytes in `TAKEN` seconds or faster, or the connection is reset.
- At most `MAX_PIPELINED` requests wait behind one that is served; then no more are taken, and the last answer closes.
- There is `Room` for so many connections; one more gets 503 before it says anything.

Refusals have a problem as their body where no other answer is under way. They end our half of the connection and
listen for a moment, as a reset would take the answer from a peer that still sends.
"""

from __future__ import annotations

import asyncio
import email.utils
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar

import httptools
import msgspec
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from klines.errors import Unavailable
from klines.web.connection import reset
from klines.web.gate import MAX_HEADERS, MAX_TARGET
from klines.web.guard import GUARDS, OURS
from klines.web.problem import MEDIA_TYPE, Problem, told
from klines.web.room import room_of

MAX_HEAD = 40 * 1024
MAX_PIPELINED = 16
# Of a body that comes after its answer, and of what comes after the last answer.
MAX_LEFTOVER = 64 * 1024 * 1024
MAX_LATE = 1024 * 1024


class Http(HttpToolsProtocol):
    """One connection until it is upgraded; times in seconds."""

    BEGIN: ClassVar[float] = 10.0
    HEAD: ClassVar[float] = 10.0
    BODY: ClassVar[float] = 12.0
    TAKEN: ClassVar[float] = 10.0
    LEAST: ClassVar[int] = 64 * 1024
    LINGER: ClassVar[float] = 1.0

    def __init__(self, config: Config, server_state: ServerState, *of_server: Any, **named: Any) -> None:
        super().__init__(config, server_state, *of_server, **named)
        self.url, self.headers = b"", []
        self._room = room_of(server_state)
        self._counted = self._over = self._in_body = False
        # Bytes of the head that arrives, or of a body's framing since its last piece; and of what nobody reads.
        self._fed = self._unread = 0
        self._timed = ""
        self._timer: asyncio.TimerHandle | None = None
        self._sending: asyncio.TimerHandle | None = None

    # Called by the transport.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        if self._room.is_out_of_files(len(self.connections)):
            self._over = True
            reset(self.transport)
        elif why := self._room.refusal(len(self.connections)):
            self._refuse(*told(Unavailable(why, code="connections_exhausted")))
        else:
            self._counted = True
            self._room.plain += 1
            self._arm("begin", self.BEGIN, self.transport.close)

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

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch()

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
        super().on_headers_complete()
        self._disarm()
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

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._watch()

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
        """Whether the head that is arriving, or what frames a body, is more than there may be; then it has ended."""
        if self._fed and not self._in_body and len(self.url) > MAX_TARGET:
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
            self._arm("head", self.HEAD, self._end, 408, *late)

    def _end(self, status: int, code: str, detail: str) -> None:
        """Take nothing more: answer with a problem where it is the turn of what is wrong, and close."""
        problem = Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, code=code)
        cycle = self.cycle
        self._over = True
        self._disarm()
        if self.pipeline or (cycle is not None and not cycle.response_complete and not self._in_body):
            self._end_after_answers()
        elif cycle is None or not self._in_body:
            self._refuse(problem, {})
        elif cycle.response_complete:
            self._close()
        else:
            started = cycle.response_started
            cycle.disconnected = True
            cycle.message_event.set()
            if started:
                reset(self.transport)
            else:
                self._refuse(problem, {})

    def _end_after_answers(self) -> None:
        if self._in_body:
            # The last of them will never have its body.
            reset(self.transport)
        else:
            self.cycle.keep_alive = False

    def _refuse(self, problem: Problem, headers: dict[str, str]) -> None:
        body = msgspec.json.encode(problem)
        fields = {"Date": email.utils.formatdate(usegmt=True), "Content-Type": MEDIA_TYPE, **headers}
        fields |= {"Content-Length": str(len(body)), "Connection": "close"}
        lines = [f"{name}: {value}\r\n".encode() for name, value in fields.items()]
        lines += [b"%b: %b\r\n" % field for field in (*GUARDS, OURS)]
        line = f"HTTP/1.1 {problem.status} {HTTPStatus(problem.status).phrase}\r\n".encode()
        self.transport.write(b"".join([line, *lines, b"\r\n", body]))
        self._close()

    def _close(self) -> None:
        self._over = True
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._arm("close", self.LINGER, reset, self.transport)

    def _watch(self) -> None:
        left = self.transport.get_write_buffer_size()
        if left and self._sending is None:
            self._sending = self.loop.call_later(self.TAKEN, self._look_at_sent, left)

    def _look_at_sent(self, before: int) -> None:
        self._sending = None
        left = self.transport.get_write_buffer_size()
        if left and before - left < min(self.LEAST, before):
            reset(self.transport)
        else:
            self._watch()

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
        if self._sending is not None:
            self._sending.cancel()
            self._sending = None
        if self._counted:
            self._counted = False
            self._room.plain -= 1
