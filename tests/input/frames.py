"""WebSocket frames made by hand, whatever the protocol says of them, and those of the service read back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import quote

from tests.input.wire import DEADLINE, Place, parsed

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
FIN, RSV1, RSV2 = 0x80, 0x40, 0x20


def frame(opcode: int, data: bytes = b"", *, bits: int = FIN, masked: bool = True) -> bytes:
    """One frame; its mask is zeros, so that its data stand in it as they are."""
    size = len(data)
    sizes = (size, b"") if size < 126 else (126, size.to_bytes(2)) if size < 65_536 else (127, size.to_bytes(8))
    mask = bytes(4) if masked else b""
    return bytes([bits | opcode, (0x80 if masked else 0) | sizes[0]]) + sizes[1] + mask + data


def close(code: int, reason: bytes = b"") -> bytes:
    """A close frame with this code."""
    return frame(CLOSE, code.to_bytes(2) + reason)


def upgrade(target: str, *headers: str, version: str = "13", key: str = "dGhlIHNhbXBsZSBub25jZQ==") -> bytes:
    """The request for an upgrade; an empty version or key is left out."""
    lines = [f"GET {quote(target, safe='/?&=%@!:,;')} HTTP/1.1", "Host: localhost", "Upgrade: websocket"]
    lines += ["Connection: Upgrade"] if not any(one.startswith("Connection:") for one in headers) else []
    lines += [f"Sec-WebSocket-Version: {version}"] if version else []
    lines += [f"Sec-WebSocket-Key: {key}"] if key else []
    return "\r\n".join([*lines, *headers]).encode() + b"\r\n\r\n"


class Told(NamedTuple):
    """One frame of the service."""

    opcode: int
    data: bytes

    @property
    def code(self) -> int:
        """Of a close frame: its code; 1005 if it has none."""
        return int.from_bytes(self.data[:2]) if self.data else 1005


class Socket:
    """An upgraded connection, byte by byte."""

    def __init__(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = parsed(head)
        assert answer is not None and answer.status == 101, head
        self.headers = answer.headers
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes as they are; it does not matter if the service has gone meanwhile."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except ConnectionError:
            pass

    async def next(self) -> Told:
        """The next frame of the service."""
        first, second = await self._reader.readexactly(2)
        assert not second & 0x80, "the service masks"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8))
        return Told(first & 0x0F, await self._reader.readexactly(size))

    async def until_close(self) -> tuple[list[Told], int]:
        """What comes before the close frame, and its code; 1006 without one."""
        told: list[Told] = []
        try:
            while (one := await self.next()).opcode != CLOSE:
                told.append(one)
        except (asyncio.IncompleteReadError, ConnectionError):
            return told, 1006
        return told, one.code

    def abort(self) -> None:
        """Go without a word."""
        self._writer.transport.abort()


@asynccontextmanager
async def upgraded(place: Place, target: str, *headers: str) -> AsyncIterator[Socket]:
    """A WebSocket at this address; everything done with it has `DEADLINE` seconds."""
    async with asyncio.timeout(DEADLINE):
        reader, writer = await asyncio.open_connection(place.host, place.port)
        try:
            writer.write(upgrade(target, *headers))
            head = await reader.readuntil(b"\r\n\r\n")
            yield Socket(head, reader, writer)
        finally:
            writer.transport.abort()
