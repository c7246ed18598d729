"""The connections of a relay: what is read at every turn and what opens a stream want other plans of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from klines.database import reading
from klines.dear import Dear


class Engines(NamedTuple):
    """`turns`: one connection, for a few rows by their keys, very often; `openings`: whatever a stream begins with.

    Openings share their connections with all other reads, and the places of the dear ones.
    """

    turns: AsyncEngine
    openings: AsyncEngine
    dear: Dear

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[AsyncConnection]:
        """The connection of the turns; raises `Unavailable`."""
        async with _each_on_its_own(self.turns) as connection:
            yield connection

    @asynccontextmanager
    async def opening(self, *, dear: bool) -> AsyncIterator[AsyncConnection]:
        """A connection for an opening: what goes wrong with it does not concern the turns; raises `Unavailable`."""
        async with self.dear.place() if dear else nullcontext(), _each_on_its_own(self.openings) as connection:
            yield connection


@asynccontextmanager
async def _each_on_its_own(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with reading(engine) as connection:
        # A statement is a transaction: each sees the newest commits, and none holds back the server's vacuum.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection
