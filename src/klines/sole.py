"""Work that one process does, however many run: whoever holds a lock in the database.

The work starts again when it fails or its database goes away, and moves to another process when its own ends, or when
the server has not heard of its host for half a minute. Each process keeps one connection per work, lock or no lock,
and no statement on it waits for ever. Work that leaves its connection idle has it probed, and ends before the server
gives the lock to another; other work notices at its next statement, and must bear two of its kind for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from enum import IntEnum
from functools import partial
from typing import Any

import asyncpg

from klines.background import running
from klines.database import (
    APPLICATION,
    CLOSE_SECONDS,
    CONNECT_SECONDS,
    READ_SECONDS,
    WRITE_SECONDS,
    connected,
    translated,
)
from klines.session import LASTING

RETRY_SECONDS = 2.0
PROBE_SECONDS = 3.0
LONG_SECONDS = 6 * 3600

_TRY = "SELECT pg_try_advisory_lock($1)"
_PROBE = "SELECT 1"

logger = logging.getLogger("klines.sole")


class Sole(IntEnum):
    """The works, by the key of their lock: the bytes of "klines" and a number."""

    MOCK_FEED = 0x6B6C696E6573_01
    RETENTION = 0x6B6C696E6573_02
    TAPE_SWEEP = 0x6B6C696E6573_03
    ANALYST_WATCH = 0x6B6C696E6573_04

    @property
    def leaves_idle(self) -> bool:
        """Whether this work sends nothing over the connection that holds its lock."""
        return self is Sole.MOCK_FEED

    @property
    def statement_seconds(self) -> int:
        """How long a statement of this work may take."""
        # The first forgetting in the plain profile deletes years of trades in one statement; cut short, it never ends.
        return LONG_SECONDS if self is Sole.RETENTION else WRITE_SECONDS


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
        async with _connected(url, sole.statement_seconds) as connection:
            # Not the lock that waits in the server: its statement would hold the vacuum back for as long.
            while not await connection.fetchval(_TRY, int(sole), timeout=READ_SECONDS):  # noqa: ASYNC110 - as said
                await asyncio.sleep(RETRY_SECONDS)
            logger.info("this process runs the %s", name)
            async with _proven(connection) if sole.leaves_idle else nullcontext():
                await work(Holder(connection))


@asynccontextmanager
async def _proven(connection: asyncpg.Connection[Any]) -> AsyncIterator[None]:
    """Ends what it is around, with `TimeoutError`, when the connection does not answer a probe."""
    async with asyncio.timeout(None) as ending:

        async def probe() -> None:
            try:
                while True:
                    await asyncio.sleep(PROBE_SECONDS)
                    await connection.execute(_PROBE, timeout=PROBE_SECONDS)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
                connection.terminate()
                ending.reschedule(0)

        probing = asyncio.create_task(probe(), name="probe")
        try:
            yield
        finally:
            probing.cancel()
            with suppress(asyncio.CancelledError):
                await probing


@asynccontextmanager
async def _connected(url: str, statement_seconds: int) -> AsyncIterator[asyncpg.Connection[Any]]:
    connection = await connected(
        url,
        # The server gives up first, and says so; ours is for a server that says nothing any more.
        command_timeout=statement_seconds + CONNECT_SECONDS,
        server_settings=_session(statement_seconds),
    )
    try:
        yield connection
    finally:
        # A server that is gone cannot be told; its silence must not stand in for the cancellation that brought us here.
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close(timeout=CLOSE_SECONDS)


def _session(statement_seconds: int) -> dict[str, str]:
    return LASTING | {
        "application_name": APPLICATION,
        "default_transaction_isolation": "read committed",
        "statement_timeout": f"{statement_seconds}s",
    }
