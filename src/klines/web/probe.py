"""What health asks the database, over a connection of its own: a pool that is in use says nothing about the database.

However many ask, one question is under way; whoever asks waits for `CHECK_SECONDS` at the most.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from sqlalchemy.ext.asyncio import AsyncEngine

from klines.breaker import GONE
from klines.database import open_engine, reading
from klines.errors import Unavailable
from klines.queries import server
from klines.queries.server import State

CHECK_SECONDS = 2


class Probe:
    """Asks through an engine that nobody else uses."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._asking: asyncio.Task[State] | None = None

    async def state(self) -> State:
        """The state of the database; raises `Unavailable`, in time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(), name="probe of the database")
            # Nobody may be left to take what comes of it.
            self._asking.add_done_callback(lambda done: done.cancelled() or done.exception())
        asking = self._asking
        # Left alone when it takes longer: whoever asks next may find it done, or waits for the same one.
        await asyncio.wait({asking}, timeout=CHECK_SECONDS)
        if not asking.done():
            raise Unavailable("the database does not answer", code=GONE)
        return asking.result()

    async def _ask(self) -> State:
        async with reading(self._engine) as connection:
            return await server.state(connection)

    async def end(self) -> None:
        """Give up what is under way."""
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError, Unavailable):
                await self._asking


@asynccontextmanager
async def open_probe(url: str) -> AsyncIterator[Probe]:
    """A probe of the database at `url` while the context is open."""
    async with open_engine(url, statement_seconds=CHECK_SECONDS) as engine:
        probe = Probe(engine)
        try:
            yield probe
        finally:
            await probe.end()
