"""Dear reads: which they are, and the few places for them, so that light ones always find a connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from klines.errors import Unavailable
from klines.interval import Width

# Stored bars a page may be made of before it is a dear one: the dearest are made of 300,000, in 300 to 500 ms.
DEAR_PARTS = 20_000
# Dear reads at once in a process, at the most; and how long one more waits.
DEAR_READS = 2
DEAR_SECONDS = 5.0
LEAST_CONNECTIONS = 2


def is_dear(limit: int, width: Width) -> bool:
    """Whether so many bars of this width are a dear read."""
    return limit * width.parts > DEAR_PARTS


def connections(pool_size: int) -> int:
    """How many reading connections a pool has: one is not enough for a dear read and a light one."""
    return max(pool_size, LEAST_CONNECTIONS)


class Dear:
    """The places for dear reads beside so many reading connections, of which at least one is left for light ones."""

    def __init__(self, connections: int) -> None:
        self.places = min(DEAR_READS, connections - 1)
        self._free = asyncio.Semaphore(self.places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the places, in the order of asking; raises `Unavailable` when none comes free in time."""
        try:
            async with asyncio.timeout(DEAR_SECONDS):
                await self._free.acquire()
        except TimeoutError:
            rule = f"reads as dear as this one queue, {self.places} are served at once"
            raise Unavailable(f"the database is busy: {rule}", code="database_busy") from None
        try:
            yield
        finally:
            self._free.release()
