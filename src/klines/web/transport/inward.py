"""What a peer may say on a WebSocket: nothing on a one-way stream, whole text messages where the application hears.

Messages are put together and checked here, so that what comes in pieces takes no more than `max_size` bytes, and what
comes at once no more than `MAX_AT_ONCE` messages. Frames that carry next to nothing are bounded by number: in
`CHATTER_SECONDS` a peer may send `MAX_CHATTER` pings, pongs and small pieces of messages, then it is closed with 1008.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from websockets.frames import Frame, Opcode
from websockets.protocol import State

from klines.web.transport.handshake import Handshake

# More than any client says in one breath; whoever does is closed with 1008.
MAX_AT_ONCE = 128
# Clients ping every few seconds, and send no message in pieces.
MAX_CHATTER = 200
CHATTER_SECONDS = 10.0
# Below so many bytes a piece of a message costs more than it brings.
SMALL_PIECE = 128
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class Inward(Handshake):
    """The protocol of a stream: the first frame of a message begins the end, after which only a close is heard.

    After `hear` complete text messages are events, each as one frame; binary ones are closed with 1003.
    """

    _message: bytearray | None = None
    # Of the class until a peer chatters: few do, and every connection has its dictionary.
    _chatter, _chatter_since = 0, 0.0

    def hear(self) -> None:
        """From now on the peer may speak."""
        self._message = bytearray()

    def recv_frame(self, frame: Frame) -> None:
        """Take a whole frame; the `UnicodeDecodeError` of a text is 1007 to the parser, which calls this."""
        if self.state is State.OPEN and _is_chatter(frame) and self._is_too_much():
            self.send_close(1008, "too many pings, pongs or small pieces")
        elif self.state is State.OPEN and self._message is not None and frame.opcode in _DATA:
            self._hear(frame, self._message)
        elif self.state is State.OPEN and frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            if frame.opcode is Opcode.TEXT and frame.fin:
                str(frame.data, "utf-8")
            self.send_close(4400 if frame.opcode is Opcode.TEXT else 1003, "this stream takes no messages")
        elif self.state is State.OPEN or frame.opcode is Opcode.CLOSE:
            super().recv_frame(frame)

    def _is_too_much(self) -> bool:
        now = time.monotonic()
        if now - self._chatter_since > CHATTER_SECONDS:
            self._chatter, self._chatter_since = 0, now
        self._chatter += 1
        return self._chatter > MAX_CHATTER

    def _hear(self, frame: Frame, message: bytearray) -> None:
        if frame.opcode is Opcode.BINARY:
            self.send_close(1003, "messages are text")
            return
        super().recv_frame(frame)
        self.events.pop()
        message += frame.data
        if not frame.fin:
            return
        str(message, "utf-8")
        self.events.append(Frame(Opcode.TEXT, bytes(message)))
        message.clear()
        if len(self.events) > MAX_AT_ONCE:
            self.send_close(1008, "too many messages at once")


def _is_chatter(frame: Frame) -> bool:
    if frame.opcode in {Opcode.PING, Opcode.PONG}:
        return True
    is_piece = frame.opcode is Opcode.CONT or not frame.fin
    return is_piece and len(frame.data) < SMALL_PIECE


class Inbox:
    """An asyncio.Queue for one receiver; the real one's three deques take 2.5 KiB of every connection."""

    __slots__ = ("_arrived", "_events")

    def __init__(self) -> None:
        self._events: list[dict[str, object]] = []
        self._arrived: asyncio.Future[None] | None = None

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._events

    def put_nowait(self, event: dict[str, object]) -> None:
        """Add an event."""
        self._events.append(event)
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)

    def get_nowait(self) -> dict[str, object]:
        """The next event, if there is one."""
        return self._events.pop(0)

    async def get(self) -> dict[str, object]:
        """Wait for the next event."""
        while not self._events:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._events.pop(0)


class Farewell:
    """In the place of an inbox whose application has returned: all that is looked for is the disconnect."""

    __slots__ = ("_is_over", "_loop", "_then")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._then: tuple[Callable[[], None], ...] = ()
        self._is_over = False

    def then(self, then: Callable[[], None]) -> None:
        """Call this when the connection has ended, in the order in which it was said, and not from within its end."""
        if self._is_over:
            self._loop.call_soon(then)
        else:
            self._then += (then,)

    def empty(self) -> bool:
        """Nothing ever waits."""
        return True

    def put_nowait(self, event: dict[str, object]) -> None:
        """Look at an event."""
        if event["type"] == "websocket.disconnect" and not self._is_over:
            self._is_over = True
            for then in self._then:
                self._loop.call_soon(then)
            self._then = ()
