"""Waiting for others, as long as we had the time to listen: what our own event loop was late does not count."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from klines.errors import Unavailable

TICK_SECONDS = 0.1


@asynccontextmanager
async def patience(seconds: float | None) -> AsyncIterator[None]:
    """As `asyncio.timeout`, in steps: a loop that was blocked looks at what has come before each of the next ones.

    A timeout alone says nothing against a server: after a blocked turn it is noticed before the answer that lies there.
    """
    async with asyncio.timeout(None) as limit:
        ticks = _Ticks(limit, seconds) if seconds is not None else None
        try:
            yield
        finally:
            if ticks is not None:
                ticks.end()


class _Ticks:
    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._left = max(1, round(seconds / TICK_SECONDS))
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        self._left -= 1
        if self._left:
            self._timer = self._loop.call_later(TICK_SECONDS, self._tick)
        else:
            self._limit.reschedule(self._loop.time())

    def end(self) -> None:
        self._timer.cancel()


@asynccontextmanager
async def place(places: asyncio.Semaphore, seconds: float) -> AsyncIterator[None]:
    """One of the places, in the order of asking; raises `Unavailable` (busy) when none comes free in time."""
    try:
        async with asyncio.timeout(seconds):
            await places.acquire()
    except TimeoutError:
        raise Unavailable("the database is busy: every connection is in use", code="database_busy") from None
    try:
        yield
    finally:
        places.release()
