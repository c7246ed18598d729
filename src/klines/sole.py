"""Work that one process does, however many run: whoever holds a lock in the database.

The work starts again when it fails or its database goes away, and moves to another process when its own ends.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from enum import IntEnum
from functools import partial
from typing import Any

import asyncpg

from klines.background import running
from klines.database import APPLICATION, CONNECT_SECONDS, translated

RETRY_SECONDS = 2.0

logger = logging.getLogger("klines.sole")


class Sole(IntEnum):
    """The works, by the key of their lock: the bytes of "klines" and a number."""

    MOCK_FEED = 0x6B6C696E6573_01
    RETENTION = 0x6B6C696E6573_02
    TAPE_SWEEP = 0x6B6C696E6573_03


class Holder:
    """The connection that holds the lock; the server lets go of the lock when the connection ends."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self.connection = connection

    @property
    def holds(self) -> bool:
        """False as soon as the connection is known to have ended."""
        return not self.connection.is_closed()


@asynccontextmanager
async def kept_running(url: str, sole: Sole, work: Callable[[Holder], Awaitable[None]]) -> AsyncIterator[None]:
    """While the context is open, run `work` here whenever this process gets the lock in the database at `url`."""
    name = sole.name.lower().replace("_", " ")
    async with running(name, partial(_once, url, sole, work, name), RETRY_SECONDS):
        yield


async def _once(url: str, sole: Sole, work: Callable[[Holder], Awaitable[None]], name: str) -> None:
    with translated():
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": APPLICATION}
        )
        try:
            if await connection.fetchval("SELECT pg_try_advisory_lock($1)", int(sole)):
                logger.info("this process runs the %s", name)
                await work(Holder(connection))
        finally:
            await connection.close(timeout=CONNECT_SECONDS)
