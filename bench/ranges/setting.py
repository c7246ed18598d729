"""Where windows of bars are asked for: the same trades loaded everywhere, everybody started, and all bars equal."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from bench.peers.orm import BY_TOKEN_AND_TIME, Base, address
from bench.ranges import store
from bench.ranges.market import Market
from bench.ranges.peers import Embedded, Orm, Ours, Peer, application, engine
from bench.stage import Stage

# In the order in which they are loaded and told.
ENGINES = {
    "duckdb": ("duckdb, 1 thread", "duckdb, 2 threads", "duckdb, sorted, 2 threads"),
    "chdb": ("chdb", "chdb, view", "chdb, view, unmerged"),
}
OURS, ORM = "klines", "FastAPI + ORM"
SECONDS = 60
BARS = "SELECT token_id, extract(epoch FROM time)::bigint, open, high, low, close, volume, trades"


class Setting(NamedTuple):
    """All peers by name, ours first; the engines; and a connection to our database."""

    market: Market
    peers: Mapping[str, Peer]
    engines: Mapping[str, Embedded]
    connection: asyncpg.Connection[Any]

    async def agree(self) -> None:
        """RuntimeError unless all one-minute bars of the whole history are the same everywhere."""
        digests = {OURS: await digest(self.connection, f"{BARS} FROM klines_1m ORDER BY token_id, time")}
        for name, one in self.engines.items():
            digests[name] = await one.do("digest", seconds=SECONDS)
        if len(set(digests.values())) > 1:
            raise RuntimeError(f"the bars differ: {digests}")


@asynccontextmanager
async def opened(stage: Stage, market: Market) -> AsyncIterator[Setting]:
    """Load the market everywhere and start everybody; all of it ends with the context."""
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(stage.database("ours"))
        await store.load(url, market)
        connection = await stack.enter_async_context(store.connected(url))
        # What limits a client in a minute is no part of this.
        service = stack.enter_context(stage.serving(url, KLINES_READ_LIMIT="0"))
        plain = await stack.enter_async_context(_orm_database(stage, market))
        app = await stack.enter_async_context(application(plain))
        peers: dict[str, Peer] = {OURS: Ours(service, stage.postmaster), ORM: Orm(app, stage.postmaster)}
        engines = {}
        for name, variants in ENGINES.items():
            engines[name] = await stack.enter_async_context(engine(name, stage.folder))
            await engines[name].do("load", file=str(market.file))
            peers |= {variant: engines[name].variant(variant) for variant in variants}
        yield Setting(market, peers, engines, connection)


@asynccontextmanager
async def _orm_database(stage: Stage, market: Market) -> AsyncIterator[str]:
    url = urlunsplit(urlsplit(stage.url)._replace(path="/orm"))
    async with store.connected(stage.url) as first:
        await first.execute("CREATE DATABASE orm")
        try:
            engine = create_async_engine(address(url))
            async with engine.begin() as tables:
                await tables.run_sync(Base.metadata.create_all)
                # Loaded the quick way: neither the index nor the check of each row's token is timed here.
                await tables.run_sync(BY_TOKEN_AND_TIME.drop)
                await tables.execute(text("ALTER TABLE trades DISABLE TRIGGER ALL"))
            await store.load(url, market)
            async with engine.begin() as tables:
                await tables.execute(text("ALTER TABLE trades ENABLE TRIGGER ALL"))
                await tables.run_sync(BY_TOKEN_AND_TIME.create)
            await engine.dispose()
            yield url
        finally:
            await first.execute("DROP DATABASE orm WITH (FORCE)")


async def digest(connection: asyncpg.Connection[Any], rows: str) -> str:
    """The SHA-256 of a query's rows in CSV."""
    found = hashlib.sha256()

    async def take(part: bytes) -> None:
        found.update(part)

    await connection.copy_from_query(rows, output=take, format="csv")
    return found.hexdigest()
