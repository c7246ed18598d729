"""One WebSocket on a plain socket, with as little work per frame as can be: what is measured is the service.

It understands what the servers send, which is text in one frame, pings, and the end of the connection; no more.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress

from bench.live.writer import PER_TOKEN

DEADLINE = 60
REQUEST = (
    "GET {} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
TEXT, PING = 0x81, 0x89
TRADE = re.compile(rb'"trade_id":(\d+)')
CURSOR = re.compile(rb'"cursor":"[0-9a-f]{12}\.(\d+)\.(\d+)')
TINY = 4096


class Client:
    """A WebSocket, open and past its snapshot: `messages` is for what comes after; raises OSError until then.

    `buffer` is the size of its receive buffer in bytes, 0: the kernel's own choice. A server that does not greet sends
    no snapshot.
    """

    def __init__(self, port: int, path: str, buffer: int = 0, greeted: bool = True) -> None:
        self.socket = socket.socket()
        if buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(("127.0.0.1", port))
        self.socket.sendall(REQUEST.format(path).encode())
        self._rest = self._behind_the_head(path)
        found = CURSOR.search(self._snapshot()) if greeted else None
        self._seen = int(found[2]) if found else 0
        self.socket.setblocking(False)

    def _behind_the_head(self, path: str) -> bytes:
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._piece()
        head, _, rest = data.partition(b"\r\n\r\n")
        if b" 101 " not in head:
            raise ConnectionError(f"{path}: {data[:200]!r}")
        return rest

    def _snapshot(self) -> bytes:
        found = list(self.messages(b""))
        while not found:
            found = list(self.messages(self._piece()))
        return found[0]

    def _piece(self) -> bytes:
        data = self.socket.recv(TINY)
        if not data:
            raise ConnectionError("the service ended a connection that was not open yet")
        return data

    def messages(self, data: bytes) -> Iterator[bytes]:
        """The text messages that this piece completes; pings are answered."""
        data, place = self._rest + data, 0
        while extent := _extent(data, place):
            start, end = extent
            if data[place] == TEXT:
                yield data[start:end]
            elif data[place] == PING:
                # Whether the connection has ended is for `recv` to tell.
                with suppress(OSError):
                    self.socket.send(bytes([0x8A, 0x80 | end - start, 0, 0, 0, 0]) + data[start:end])
            place = end
        self._rest = data[place:]

    def trades(self, message: bytes) -> Iterable[int]:
        """The ids of the trades that a message is the first to tell; messages are to be given in their order."""
        if b'"kline":' not in message:
            return [int(number) for number in TRADE.findall(message)]
        if not (found := CURSOR.search(message)):
            return []
        # A bar holds every trade of its token up to its cursor.
        base, last = int(found[1]) * PER_TOKEN, int(found[2])
        told = range(base + self._seen + 1, base + last + 1)
        self._seen = max(self._seen, last)
        return told


def _extent(data: bytes, place: int) -> tuple[int, int] | None:
    if len(data) < place + 2:
        return None
    size, start = data[place + 1], place + 2
    if size >= 126:
        start += 2 if size == 126 else 8
        size = int.from_bytes(data[place + 2 : start], "big")
    return (start, start + size) if len(data) >= start + size else None
