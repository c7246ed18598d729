"""The two connections of a relay. What is read at every turn and what opens a stream want other plans of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from klines.database import open_engine, reading


class Engines(NamedTuple):
    """`turns` reads a few rows by their keys, very often; `openings` whatever a stream begins with."""

    turns: AsyncEngine
    openings: AsyncEngine

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[AsyncConnection, AsyncConnection]]:
        """A connection of each, every statement a transaction of its own; raises `Unavailable`."""
        async with reading(self.turns) as turns, reading(self.openings) as openings:
            for connection in (turns, openings):
                await connection.execution_options(isolation_level="AUTOCOMMIT")
            yield turns, openings


@asynccontextmanager
async def open_engines(url: str) -> AsyncIterator[Engines]:
    """Both engines on the database at `url`."""
    async with open_engine(url, by_key=True) as turns, open_engine(url) as openings:
        yield Engines(turns, openings)
