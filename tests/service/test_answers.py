"""Pages that were answered before: sent again without reading a bar, and never when a bar could be another one."""

from __future__ import annotations

import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest

from klines.models import Trade
from klines.timestamp import to_datetime
from tests.application import serving, settings_for
from tests.servers import Database
from tests.storage.bars import retire

BASE = 1_700_000_100_000
MINUTE = 60_000
INSERT = "INSERT INTO trades (token_id, trade_id, time, price, amount, side) VALUES ($1, $2, $3, $4, 1, 'buy')"
COLUMNS = ("token_id", "trade_id", "time", "price", "amount", "side")
PAGES = (
    "interval=1m",
    "interval=1s",
    "interval=7m",
    f"interval=1m&fill=null&from={BASE}&to={BASE + 3 * MINUTE}",
    f"interval=1m&from={BASE}&to={BASE + MINUTE}",
)


@pytest.fixture
async def connection(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of a foreign program, such as psql."""
    opened = await asyncpg.connect(database.url)
    yield opened
    await opened.close()


@pytest.fixture
async def other(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of another service on the same database."""
    async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url) as opened:
        yield opened


async def post(client: httpx.AsyncClient, *trades: Trade) -> None:
    answer = await client.post("/api/v1/trades", json={"trades": [trade._asdict() for trade in trades]})
    assert answer.status_code == 200, answer.text


def trade(number: int, price: str = "1") -> Trade:
    return Trade("PEPE", number, (BASE + number * 1000) * 1000, price, "1", "buy")


async def page(client: httpx.AsyncClient, query: str) -> bytes:
    answer = await client.get(f"/api/v1/klines/PEPE?{query}")
    assert answer.status_code == 200, answer.text
    return answer.content


async def test_a_page_asked_for_again_is_sent_without_reading_bars(
    client: httpx.AsyncClient, connection: asyncpg.Connection[Any]
) -> None:
    await post(client, *map(trade, range(100)))
    first = [await client.get(f"/api/v1/klines/PEPE?{query}") for query in PAGES]
    async with connection.transaction():
        # Whoever read a bar now would wait, and be refused in the end.
        await connection.execute("LOCK TABLE klines_internal.live_klines IN ACCESS EXCLUSIVE MODE")
        again = [await client.get(f"/api/v1/klines/PEPE?{query}") for query in PAGES]
        etag = first[0].headers["etag"]
        same = await client.get(f"/api/v1/klines/PEPE?{PAGES[0]}", headers={"If-None-Match": etag})
        head = await client.head(f"/api/v1/klines/PEPE?{PAGES[0]}")
    assert (same.status_code, same.content, head.headers["etag"], head.content) == (304, b"", etag, b"")
    for before, after in zip(first, again, strict=True):
        assert (after.status_code, after.content) == (200, before.content)
        kept = ("etag", "cache-control", "content-type", "content-length")
        assert [after.headers.get(name) for name in kept] == [before.headers.get(name) for name in kept]


class Writers:
    """Everybody who may write trades of a token: services, and programs that know only the table."""

    def __init__(self, connection: asyncpg.Connection[Any], *services: httpx.AsyncClient) -> None:
        self.connection, self.services = connection, services
        self.token_id = 0

    def row(self, one: Trade) -> tuple[Any, ...]:
        return (self.token_id, one.trade_id, to_datetime(one.time_us), int(one.price))

    async def here(self, one: Trade) -> None:
        await post(self.services[0], one)

    async def there(self, one: Trade) -> None:
        await post(self.services[1], one)

    async def insert(self, one: Trade) -> None:
        await self.connection.execute(INSERT, *self.row(one))

    async def copy(self, one: Trade) -> None:
        records = [(*self.row(one), 1, "buy")]
        await self.connection.copy_records_to_table("trades", records=records, columns=COLUMNS)

    async def twice(self, one: Trade) -> None:
        # What is read in the middle of a transaction must not be taken for what it commits.
        async with self.connection.transaction():
            await self.insert(one)
            await page(self.services[0], PAGES[0])
            await self.insert(one._replace(trade_id=one.trade_id + 5000))


async def test_every_commit_shows_in_the_next_answer_whoever_made_it(
    client: httpx.AsyncClient, other: httpx.AsyncClient, connection: asyncpg.Connection[Any]
) -> None:
    await post(client, trade(0))
    writers = Writers(connection, client, other)
    writers.token_id = await connection.fetchval("SELECT token_id FROM tokens")
    each = itertools.cycle((writers.here, writers.there, writers.insert, writers.copy, writers.twice))
    limits = itertools.count(1000)
    for number in range(1, 26):
        await next(each)(trade(number, str(number * 37 % 99 + 1)))
        for query in (PAGES[number % 5], PAGES[number % 3]):
            # A limit that nobody asked for yet, and that all bars fit in: this one is read.
            assert await page(client, query) == await page(client, f"{query}&limit={next(limits)}"), query


async def test_a_bar_that_is_corrected_shows(timescale: Database) -> None:
    connection = await asyncpg.connect(timescale.url)
    async with serving(settings_for(timescale)) as url, httpx.AsyncClient(base_url=url) as client:
        await post(client, *map(trade, range(100)))
        right = await page(client, PAGES[0])
        await connection.execute("UPDATE klines_internal.live_klines SET high = 77 WHERE seconds = 60")
        assert b'"77"' in await page(client, f"{PAGES[0]}&limit=99")
        await retire(connection, "1 day")
        assert [await page(client, PAGES[0]), await page(client, f"{PAGES[0]}&limit=99")] == [right, right]
        await post(client, trade(30, "55"), trade(1030, "56"))
        late = await page(client, PAGES[0])
        assert late == await page(client, f"{PAGES[0]}&limit=98")
        assert b'"56"' in late
    await connection.close()


async def test_an_answer_ends_with_the_connection_that_tells_versions(
    client: httpx.AsyncClient, connection: asyncpg.Connection[Any]
) -> None:
    await post(client, trade(0))
    held = await page(client, PAGES[0])
    # What a promoted standby or a restored dump may look like: the same version, and other bars.
    await connection.execute("UPDATE klines_internal.live_klines SET high = 77 WHERE seconds = 60")
    assert await page(client, PAGES[0]) == held
    ended = await connection.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database()"
        " AND query ILIKE '%feeds.xmin%= any%' AND query NOT LIKE '%live_klines%' AND pid <> pg_backend_pid()"
    )
    assert [tuple(one) for one in ended] == [(True,)]
    assert b'"77"' in await page(client, PAGES[0])


async def test_an_open_bar_is_sent_again_until_it_ends(client: httpx.AsyncClient) -> None:
    now_us = time.time_ns() // 1000
    await post(client, Trade("PEPE", 1, now_us, "1", "1", "sell"))
    end_ms = now_us // 1_000_000 * 1000 + 1000
    # Asked until the second is over: whatever the moment, the answer is that of its moment.
    closed = False
    while not closed:
        before_ms = time.time_ns() // 1_000_000
        answer = await client.get("/api/v1/klines/PEPE?interval=1s")
        closed = answer.json()["klines"][0]["closed"]
        assert closed or before_ms < end_ms
        assert not closed or time.time_ns() // 1_000_000 >= end_ms
        assert (answer.headers["cache-control"] == "no-store") is not closed
