"""The application on a real socket, in the event loop of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import uvicorn
from litestar.types import ASGIApp

from klines import server
from klines.app import create_app
from klines.settings import Settings
from tests.servers import Database


@asynccontextmanager
async def serving(settings: Settings, port: int = 0) -> AsyncIterator[str]:
    """Serve in this event loop; the base URL."""
    async with serving_app(create_app(settings), port) as url:
        yield url


@asynccontextmanager
async def serving_app(app: ASGIApp, port: int = 0, **changes: Any) -> AsyncIterator[str]:
    """Serve any application as the service is served, except for `changes` of the configuration; the base URL."""
    with server.listen("127.0.0.1", port) as listener:
        running = _Server(server.config(app, **changes))
        task = asyncio.create_task(running.serve(sockets=[listener]))
        await running.ready(task)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            running.should_exit = True
            await task


class _Server(server.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._started.set()

    async def ready(self, task: asyncio.Task[None]) -> None:
        waiting = asyncio.create_task(self._started.wait())
        await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
        assert self.started, "the application did not start"


def settings_for(database: Database, **changes: object) -> Settings:
    """Settings of a service on a test's database."""
    return msgspec.structs.replace(Settings(database_url=database.url), **changes)


async def send_raw(client: httpx.AsyncClient, head: bytes, body: bytes = b"") -> tuple[int, str]:
    """Send a request head (without its last empty line) as it stands; status and body of the answer."""
    reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
    writer.write(head + b"Connection: close\r\n\r\n" + body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    found, _, told = answer.partition(b"\r\n\r\n")
    return int(found.split(b" ")[1]), told.decode()
