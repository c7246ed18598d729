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
    async def turn(self) -> AsyncIterator[AsyncConnection]:
        """The connection of the turns; raises `Unavailable`."""
        async with _each_on_its_own(self.turns) as connection:
            yield connection

    @asynccontextmanager
    async def opening(self) -> AsyncIterator[AsyncConnection]:
        """The connection of the openings: what goes wrong with it does not concern the turns; raises `Unavailable`."""
        async with _each_on_its_own(self.openings) as connection:
            yield connection


@asynccontextmanager
async def _each_on_its_own(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with reading(engine) as connection:
        # A statement is a transaction: each sees the newest commits, and none holds back the server's vacuum.
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection


@asynccontextmanager
async def open_engines(url: str) -> AsyncIterator[Engines]:
    """Both engines on the database at `url`."""
    async with open_engine(url, by_key=True) as turns, open_engine(url) as openings:
        yield Engines(turns, openings)
