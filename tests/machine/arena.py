"""What the state machine plays on: a PostgreSQL of its own, a service on one port, a proxy before it, one event loop.

The loop runs in a thread of its own, so that the service lives on between two steps of the machine.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, TypeVar

import httpx

from tests.application import serving, settings_for
from tests.faults.oracles import connected
from tests.live.followers import PROMISED, TERMINATE, address_of, before, poll
from tests.live.power import Power, powered
from tests.live.proxy import Proxy
from tests.servers import Database

GRACE_MS = 100
STEP_SECONDS = 60.0
T = TypeVar("T")


class Arena:
    """The parts that faults break; everything here runs in the arena's loop."""

    def __init__(self, power: Power, database: Database) -> None:
        self.power = power
        self.database = database
        self.client: httpx.AsyncClient
        self.proxy: Proxy
        self._service = AsyncExitStack()
        self._around = AsyncExitStack()
        self._port = 0

    @property
    def url(self) -> str:
        """Where clients of the streams connect: the proxy."""
        return address_of(self.proxy)

    async def open(self) -> None:
        """Start the service, and stand a proxy before it."""
        url = await self.start_service()
        self._port = int(url.rpartition(":")[2])
        self.proxy = self._around.enter_context(before(url))
        self.client = await self._around.enter_async_context(httpx.AsyncClient(base_url=url, timeout=20))

    async def start_service(self) -> str:
        """Serve, on the port of the first time."""
        settings = settings_for(self.database, klines_close_grace=GRACE_MS)
        return await self._service.enter_async_context(serving(settings, self._port))

    async def restart_service(self) -> None:
        """An orderly restart, as of a new version."""
        await self._service.aclose()
        await self.start_service()

    async def restart_database(self) -> None:
        """As `pg_ctl restart -m fast`; the service answers again."""
        await self.power.off()
        await self.power.on()

        async def ready() -> bool:
            return (await self.client.get("/health/ready")).status_code == 200

        await poll(ready, 4 * PROMISED)

    async def terminate(self, names: str) -> None:
        """End the database sessions of these applications."""
        async with connected(self.database.url) as connection:
            await connection.fetch(TERMINATE, names)

    async def close(self) -> None:
        """Stop all of it."""
        await self._service.aclose()
        await self._around.aclose()


@asynccontextmanager
async def _opened() -> AsyncIterator[Arena]:
    async with powered() as (power, database):
        arena = Arena(power, database)
        try:
            await arena.open()
            yield arena
        finally:
            await arena.close()


class Stage:
    """An arena, and the loop to play in."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.arena: Arena

    def play(self, step: Coroutine[Any, Any, T]) -> T:
        """Run one step in the loop."""
        return asyncio.run_coroutine_threadsafe(asyncio.wait_for(step, STEP_SECONDS), self._loop).result()

    def call(self, step: Callable[[], None]) -> None:
        """Run what waits for nothing in the loop."""

        async def stepped() -> None:
            step()

        self.play(stepped())


@contextmanager
def staged() -> Iterator[Stage]:
    """The arena, open, and its loop in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="arena", daemon=True)
    thread.start()
    stage, opened = Stage(loop), _opened()
    try:
        stage.arena = stage.play(opened.__aenter__())
        try:
            yield stage
        finally:
            stage.play(opened.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
