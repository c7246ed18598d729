"""One WebSocket connection: frames go straight to its transport, and whatever happens it ends within a bounded time.

What this adds to uvicorn's protocol, of which the server makes one object per upgrade:

- The application finds the connection in its scope: `scope["extensions"][EXTENSION]["connection"]`. It accepts by the
  ordinary ASGI event, then hands over encoded frames with `write` and ends with `close`; neither waits.
- No way of ending waits for the peer to read. `Transport.close` waits for a flush for ever; here it is always followed
  by `abort`, `LINGER` seconds later.
- Who does not read is not read either, so that pongs do not pile up; after the end only the close reply is looked for.
- These sockets are one-way. The first frame of a message closes: text 4400, binary 1003, more than `ws_max_size` bytes
  1009, bad UTF-8 1007. The application receives a connect and disconnects, nothing else. Unless it `hears`: then whole
  text messages reach it by the ordinary ASGI event, and no more is read while one waits for it.
- An application that need not hear may return and leave the connection to `outlive` it: one that is idle has no task.
- An idle connection costs little; the request's header fields are dropped from the scope once it is accepted.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from typing import Any, ClassVar, Protocol, cast

from uvicorn.config import Config
from uvicorn.protocols.utils import ClientDisconnected

from klines.web.problem import OUR_FAULT
from klines.web.transport.abort import reset
from klines.web.transport.handshake import QUIET
from klines.web.transport.inward import Farewell, Inbox, Inward
from klines.web.transport.upgrade import Upgrade

EXTENSION = "klines.connection"
WRITE_BUFFER = {"high": 32 * 1024, "low": 8 * 1024}
RESTARTING = "restart; reconnect with the cursor"
ENOUGH = 256 * 1024  # bytes: more than an honest peer still sends once we have ended


class Feeder(Protocol):
    """What fills a connection: paused when the write buffer is full, also from within `write`, resumed when drained."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Connection(Upgrade):
    """One upgraded connection, for the event loop's own thread. `feeder` is set by the application, if it has one.

    `sent_frames` and `sent_bytes` were given to `write`; `ended` is the code of its close, 0 while there is none.
    In seconds: `LINGER` from the end of a connection, whoever ended it, to its abort; `DRAIN` from `shutdown` to the
    abort of what is still open, below the server's grace; `SPREAD` the most over which a shutdown spreads its closes.
    """

    LINGER: ClassVar[float] = 3.0
    DRAIN: ClassVar[float] = 4.0
    SPREAD: ClassVar[float] = 2.0
    SPREAD_PER_CONNECTION: ClassVar[float] = 0.002

    def __init__(self, config: Config, **of_server: Any) -> None:
        super().__init__(config, **of_server)
        self.feeder: Feeder | None = None
        self.logger = cast(Any, QUIET)
        self.queue = cast("asyncio.Queue[Any]", Inbox())
        self._late, self._left = 0, 0.0
        self.sent_frames = self.sent_bytes = self.ended = 0

    def hears(self) -> None:
        """Let the peer speak; to be called before the upgrade is accepted."""
        cast(Inward, self.conn).hear()

    def outlive(self, then: Callable[[], None]) -> None:
        """Let the application return after it has accepted: `then` is called when the connection has ended."""
        if not isinstance(self.queue, Farewell):
            farewell = Farewell(self.loop)
            while not self.queue.empty():
                farewell.put_nowait(cast(Inbox, self.queue).get_nowait())
            self.queue = cast("asyncio.Queue[Any]", farewell)
        cast(Farewell, self.queue).then(then)

    @property
    def outlives(self) -> bool:
        """Whether it goes on without the application."""
        return isinstance(self.queue, Farewell)

    def write(self, frame: bytes) -> None:
        """Send a whole, encoded, unmasked WebSocket frame; dropped before the upgrade and once the end has begun."""
        if not self.close_sent and self.handshake_complete and not self.transport.is_closing():
            self.transport.write(frame)
            self.sent_frames += 1
            self.sent_bytes += len(frame)
            if self.feeder is not None and not self.writable.is_set():  # it may have come after the pause
                self.feeder.pause()

    def close(self, code: int, reason: str = "") -> None:
        """Begin the end: a close frame with `code` and `reason` (123 bytes at most), a disconnect for the application.

        Before the upgrade it is a refusal with 503. Called again, or after the peer has gone, it does nothing.
        """
        if not self.handshake_complete:
            self._refuse(503, reason)
        elif not self.close_sent and not self.transport.is_closing():
            self.conn.send_close(code, reason)
            self._end(code, reason)

    def unsent(self) -> int:
        """The bytes that were written and that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    def shutdown(self) -> None:
        """The server leaves: 1012, after a delay that spreads the reconnects; before the upgrade 503."""
        self.loop.call_later(self.DRAIN, self._abort)
        if not self.handshake_complete:
            self._refuse(503, "the server restarts")
            return
        longest = min(self.SPREAD, self.SPREAD_PER_CONNECTION * len(self.connections))
        self.loop.call_later(random.uniform(0, longest), self.close, 1012, RESTARTING)  # noqa: S311 - not a secret

    # Called by the transport.
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        # What waits for a slow peer waits with the feeder, where it is counted and can be replaced.
        self.transport.set_write_buffer_limits(**WRITE_BUFFER)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.transport.pause_reading()
        if self.feeder is not None:
            self.feeder.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._left = float("inf")
        if not self.read_paused:
            self.transport.resume_reading()
        if self.feeder is not None:
            self.feeder.resume()

    def data_received(self, data: bytes) -> None:
        if self.handshake_initiated and not self.handshake_complete:
            # The parser would take frames before the handshake's answer; the protocol forbids them.
            self._refuse(400, "data before the upgrade")
            return
        self._late += len(data) if self.close_sent else 0
        if self._late > ENOUGH:
            self.transport.pause_reading()
        super().data_received(data)
        said = self.conn.close_sent
        if said is not None and not self.close_sent and not self.transport.is_closing():
            self._end(said.code, said.reason)
        if self.conn.parser_exc is not None and self.close_sent and self.transport.can_write_eof():
            # The parser does not read on to a close reply; the end of our half makes the peer end its own.
            self.transport.write_eof()
        if self.conn.handshake_exc is not None and not self.handshake_initiated:
            self._refuse(400, str(self.conn.handshake_exc))
        if self.transport.is_closing():
            self._abort_later()

    def eof_received(self) -> None:
        self._abort_later()  # the event loop now closes the transport

    # Called by uvicorn's own parts.
    def start_keepalive(self) -> None:
        # A timer holds the variables of whoever starts it: those of the request need not stay.
        contextvars.Context().run(super().start_keepalive)

    def handle_parser_exception(self) -> None:
        """`data_received` sees to that."""

    def send_keepalive_ping(self) -> None:
        self._left = self.unsent()
        super().send_keepalive_ping()

    def keepalive_timeout(self) -> None:
        if self.unsent() < self._left:
            # The ping waits for the peer, or its pong for us; that it reads is as good an answer.
            self.pong_timer = None
            self.schedule_ping()
        else:
            self.close(1011, "keepalive ping timeout")

    async def run_asgi(self) -> None:
        """Run the application; its end, good or bad, is the end of the connection."""
        cast(dict[str, object], self.scope["extensions"])[EXTENSION] = {"connection": self}
        code, reason = 1000, ""
        try:
            await self.app(self.scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:
            self.logger.exception("error in a WebSocket handler")
            code, reason = 4500, OUR_FAULT.detail
        if not self.handshake_complete:
            self._refuse(500, OUR_FAULT.detail)
        if not self.outlives or code != 1000:
            self.close(code, reason)

    async def receive(self) -> Any:
        """The next event for the application; once it has taken all, the peer is read again."""
        event = await self.queue.get()
        if self.read_paused and self.queue.empty():
            self._read_on()
        return event

    async def send(self, message: Any) -> None:
        """An event of the application; raises `OSError` once the connection has ended, whoever ended it."""
        await self.writable.wait()
        if self.disconnected or self.transport.is_closing():
            raise ClientDisconnected
        if message["type"] == "websocket.close" and self.handshake_complete:
            self.close(message.get("code", 1000), message.get("reason") or "")
            return
        await super().send(message)
        if message["type"] == "websocket.accept":
            cast(list[object], self.scope["headers"]).clear()
            del self.request, self.response, self.scope
            # The parser that read the request holds it as long as it lives.
            self.conn.parser = self.conn.parse()
            next(self.conn.parser)
        if self.transport.is_closing():
            self._abort_later()

    def _refuse(self, status: int, detail: str) -> None:
        if self.close_sent or self.transport.is_closing():
            return
        self.reject(status, detail)
        self.handshake_complete = True
        self._end(1006, "")
        self.transport.close()

    def _read_on(self) -> None:
        self.read_paused = False
        if self.writable.is_set():
            self.transport.resume_reading()

    def _end(self, code: int, reason: str) -> None:
        self.stop_keepalive()
        if self.read_paused:
            self._read_on()
        self.close_sent = self.disconnected = True
        self.ended = code
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        self.writable.set()
        self._abort_later()

    def _abort(self) -> None:
        reset(self.transport)

    def _abort_later(self) -> None:
        # In uvicorn's own place for such a timer: the peer's close reply and the loss of the connection cancel it.
        if self.close_timer is None and self in self.connections:
            self.close_timer = self.loop.call_later(self.LINGER, self._abort)
