"""Clients that take without giving: bounded in number and time, on loopback only."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import asyncpg
import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

PAUSE = 0.05
WAIT = 30


class Opened(NamedTuple):
    """An answer to an upgrade: its status and fields, and the connection."""

    status: int
    head: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def cut(self) -> None:
        """End it without a word."""
        self.writer.transport.abort()


async def open_stream(port: int, path: str) -> Opened:
    """Ask for an upgrade."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    key = base64.b64encode(os.urandom(16)).decode()
    fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{fields}\r\n\r\n".encode())
    async with asyncio.timeout(WAIT):
        head = await reader.readuntil(b"\r\n\r\n")
    return Opened(int(head.split(b" ")[1]), head, reader, writer)


@asynccontextmanager
async def streams(port: int, path: str, count: int) -> AsyncIterator[list[Opened]]:
    """So many upgrades asked for at once; what is open in the end is cut."""
    opened = await asyncio.gather(*(open_stream(port, path) for _ in range(count)))
    try:
        yield opened
    finally:
        for one in opened:
            one.cut()


@contextmanager
def statements() -> Iterator[list[str]]:
    """What the service in this process asks the database, while the context is open."""
    asked: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        asked.append(statement)

    async def fetch(connection: asyncpg.Connection[Any], statement: str, *arguments: Any, **choices: Any) -> Any:
        asked.append(statement)
        return await run(connection, statement, *arguments, **choices)

    # What runs often goes to the driver directly.
    run = asyncpg.Connection.fetch
    event.listen(Engine, "before_cursor_execute", note)
    try:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(asyncpg.Connection, "fetch", fetch)
            yield asked
    finally:
        event.remove(Engine, "before_cursor_execute", note)


HEAD = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n"
BIG = "/api/v1/trades/PEPE?limit=5000"
# What an attacker says first, and then on and on.
ATTACKS = {
    "nothing": (b"", b""),
    "slow head": (HEAD, b"A"),
    "slow body": (
        b"POST /api/v1/trades HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 1000000\r\n\r\n",
        b" ",
    ),
    "slow read": (HEAD.replace(b"/health/live", BIG.encode()) + b"\r\n", b""),
}


async def attack(port: int, how: str) -> float:
    """Hold a connection as long as the service lets us; the seconds."""
    began = time.monotonic()
    with socket.socket() as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(peer, ("127.0.0.1", port))
        said, dribbled = ATTACKS[how]
        with contextlib.suppress(ConnectionError):
            await loop.sock_sendall(peer, said)
            await (_read(loop, peer) if how == "slow read" else _dribble(loop, peer, dribbled))
    return time.monotonic() - began


async def _dribble(loop: asyncio.AbstractEventLoop, peer: socket.socket, byte: bytes) -> None:
    ended = asyncio.create_task(loop.sock_recv(peer, 1))
    while not ended.done():
        await asyncio.wait({ended}, timeout=PAUSE)
        await loop.sock_sendall(peer, byte)
    await ended


async def _read(loop: asyncio.AbstractEventLoop, peer: socket.socket) -> None:
    while await loop.sock_recv(peer, 100):  # noqa: ASYNC110
        await asyncio.sleep(PAUSE)  # the pace of the attack


class Good:
    """A client that behaves: how long its requests took, in seconds."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def p99(self, count: int) -> float:
        """The 99th percentile of so many requests."""
        took = []
        for _ in range(count):
            began = time.monotonic()
            assert (await self._client.get("/api/v1/tokens")).status_code == 200
            took.append(time.monotonic() - began)
        return sorted(took)[count * 99 // 100 - 1]
