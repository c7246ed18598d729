"""What a peer may say on a WebSocket: nothing on a one-way stream, whole text messages where the application hears.

Messages are put together and checked here, so that what comes in pieces takes no more than `max_size` bytes, and what
comes at once no more than `MAX_AT_ONCE` messages.
"""

from __future__ import annotations

import asyncio

from websockets.frames import Frame, Opcode
from websockets.protocol import State

from klines.web.handshake import Handshake

# More than any client says in one breath; whoever does is closed with 1008.
MAX_AT_ONCE = 128
_DATA = frozenset({Opcode.TEXT, Opcode.BINARY, Opcode.CONT})


class Inward(Handshake):
    """The protocol of a stream: the first frame of a message begins the end, after which only a close is heard.

    After `hear` complete text messages are events, each as one frame; binary ones are closed with 1003.
    """

    _message: bytearray | None = None

    def hear(self) -> None:
        """From now on the peer may speak."""
        self._message = bytearray()

    def recv_frame(self, frame: Frame) -> None:
        """Take a whole frame; the `UnicodeDecodeError` of a text is 1007 to the parser, which calls this."""
        if self.state is State.OPEN and self._message is not None and frame.opcode in _DATA:
            self._hear(frame, self._message)
        elif self.state is State.OPEN and frame.opcode in {Opcode.TEXT, Opcode.BINARY}:
            if frame.opcode is Opcode.TEXT and frame.fin:
                str(frame.data, "utf-8")
            self.send_close(4400 if frame.opcode is Opcode.TEXT else 1003, "this stream takes no messages")
        elif self.state is State.OPEN or frame.opcode is Opcode.CLOSE:
            super().recv_frame(frame)

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

    async def get(self) -> dict[str, object]:
        """Wait for the next event."""
        while not self._events:
            self._arrived = asyncio.get_running_loop().create_future()
            await self._arrived
        return self._events.pop(0)
