"""A connection and a writer on the test's database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from klines.database import open_writers
from klines.writer import TradeWriter
from tests.servers import Database


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of a foreign program, such as psql."""
    opened = await asyncpg.connect(database.url)
    yield opened
    await opened.close()


@pytest.fixture
async def writer(database: Database) -> AsyncIterator[TradeWriter]:
    """The service's writer with room for three writers at once."""
    async with open_writers(database.url, 3) as pool:
        yield TradeWriter(pool, register=True)


@pytest.fixture
async def timescale_connection(timescale: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    opened = await asyncpg.connect(timescale.url)
    yield opened
    await opened.close()


@pytest.fixture
async def timescale_writer(timescale: Database) -> AsyncIterator[TradeWriter]:
    async with open_writers(timescale.url, 3) as pool:
        yield TradeWriter(pool, register=True)


@pytest.fixture
async def plain_connection(plain: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    opened = await asyncpg.connect(plain.url)
    yield opened
    await opened.close()
