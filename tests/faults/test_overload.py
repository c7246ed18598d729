"""Too much work of our own is no fault of the database: who waits for us is told "busy", and the breaker stays shut."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from klines import database
from klines.breaker import FAILURES, Breaker
from klines.database import open_engine, reading
from klines.errors import Unavailable
from klines.patience import patience
from klines.web.binance.streams.market import CLAIMED_AT_ONCE, Market
from klines.web.binance.streams.names import parse_name
from klines.web.binance.streams.tickers import Tickers
from tests.servers import Database

READERS = 2 * FAILURES
READY_SECONDS = 0.3
DEADLINE = 20


async def ask(engine: AsyncEngine) -> int:
    """One read."""
    async with reading(engine) as connection:
        found: int = (await connection.execute(text("SELECT 1"))).scalar_one()
        return found


@asynccontextmanager
async def engine_of(plain: Database, breaker: Breaker, size: int) -> AsyncIterator[AsyncEngine]:
    async with asyncio.timeout(DEADLINE), open_engine(plain.url, size, breaker=breaker) as engine:
        yield engine


async def test_a_blocked_loop_is_no_absent_database(plain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "READY_SECONDS", READY_SECONDS)
    breaker = Breaker()
    async with engine_of(plain, breaker, READERS) as engine:
        asking = [asyncio.create_task(ask(engine)) for _ in range(READERS)]
        # All of them wait for their connections when our own loop stands still.
        for _ in range(3):
            asyncio.get_running_loop().call_soon(time.sleep, READY_SECONDS)
            await asyncio.sleep(0)
        assert await asyncio.gather(*asking) == [1] * READERS
    assert breaker.changes["open"] == 0


async def test_a_pool_in_use_is_busy_and_no_absence(plain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "ACQUIRE_SECONDS", 2 * READY_SECONDS)
    monkeypatch.setattr(database, "READY_SECONDS", READY_SECONDS)
    breaker = Breaker()
    async with engine_of(plain, breaker, 1) as engine:
        async with reading(engine):
            refusals = await asyncio.gather(*(ask(engine) for _ in range(READERS)), return_exceptions=True)
        assert {cast(Unavailable, refusal).code for refusal in refusals} == {"database_busy"}
        assert await ask(engine) == 1
    assert breaker.changes["open"] == 0


async def test_patience_looks_before_it_gives_up_and_does_give_up() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)

    def stand_still() -> None:
        time.sleep(2 * READY_SECONDS)
        theirs.send(b"x")

    with theirs:
        asyncio.get_running_loop().call_soon(stand_still)
        async with patience(READY_SECONDS):
            assert await reader.readexactly(1) == b"x"
        begun = time.monotonic()
        with pytest.raises(TimeoutError):
            async with patience(READY_SECONDS):
                await reader.readexactly(1)
        assert time.monotonic() - begun >= READY_SECONDS * 0.9
        writer.close()
        await writer.wait_closed()


async def test_streams_of_all_connections_open_a_few_at_a_time_in_the_order_of_asking() -> None:
    asked: list[str] = []
    under_way: set[str] = set()
    go_on = asyncio.Semaphore(0)

    async def find(symbol: str) -> tuple[str, int]:
        asked.append(symbol)
        under_way.add(symbol)
        assert len(under_way) <= CLAIMED_AT_ONCE
        await go_on.acquire()
        under_way.remove(symbol)
        return symbol, len(asked)

    market = Market(cast(Any, None), cast(Any, None), Tickers(cast(Any, None)), find)
    names = [f"T{number}" for number in range(4 * CLAIMED_AT_ONCE)]
    claims = [asyncio.create_task(market.claim(parse_name(f"{name}@ticker"))) for name in names]
    for _ in names:
        go_on.release()
        await asyncio.sleep(0)
    async with asyncio.timeout(DEADLINE):
        await asyncio.gather(*claims)
    assert [name.upper() for name in asked] == names
