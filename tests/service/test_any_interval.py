"""`interval=` takes any width from 1s to 1w: bars made of stored ones equal the oracle's, whatever the page."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klines import dear
from klines.models import Trade
from tests import oracle
from tests.application import serving, settings_for
from tests.live.followers import PROMISED, poll
from tests.servers import Database
from tests.storage.bars import retire

INTERVALS = ("5s", "7s", "45s", "59s", "3m", "7m", "90m", "12h", "36h", "3d", "1w")
DAY_US = 86_400_000_000
_names = map("ANY{}".format, itertools.count())

# Trades in clusters of seconds, minutes, hours and days, so that every width has bars of several parts and gaps.
steps = st.lists(
    st.sampled_from([0, 1, 3, 20, 61, 400, 4000, 50_000, 200_000]).flatmap(lambda s: st.integers(s, s * 3 // 2)),
    min_size=1,
    max_size=40,
)
examples = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
async def service(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


async def told(client: httpx.AsyncClient, symbol: str, **query: Any) -> dict[int, oracle.Bar]:
    """The bars of an answer by open time in epoch microseconds."""
    answer = await client.get(f"/api/v1/klines/{symbol}", params={name.rstrip("_"): v for name, v in query.items()})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["interval"] == query["interval"]
    width = oracle.seconds(query["interval"]) * 1000
    assert all(row["close_time"] == row["open_time"] + width - 1 for row in body["klines"])
    return {row["open_time"] * 1000: _bar(row) for row in body["klines"]}


def _bar(row: dict[str, Any]) -> oracle.Bar:
    values: Any = {name: Decimal(row[name]) if isinstance(row[name], str) else row[name] for name in oracle.Bar._fields}
    return oracle.Bar(**values)


def tape(symbol: str, gaps: list[int]) -> list[Trade]:
    """Trades that end now, with these seconds between them."""
    times = list(itertools.accumulate(gaps))
    begin = int(time.time()) - times[-1] - 1
    return [
        Trade(symbol, n, (begin + at) * 1_000_000, f"0.00{7 + n * 5 % 11}", f"{n + 1}.5", "buy" if n % 3 else "sell")
        for n, at in enumerate(times)
    ]


@examples
@given(
    gaps=steps, interval=st.sampled_from(INTERVALS), limit=st.integers(1, 12), ends=st.tuples(*[st.integers(0, 40)] * 2)
)
async def test_any_page_of_any_width_equals_the_oracle(
    service: httpx.AsyncClient, database: Database, gaps: list[int], interval: str, limit: int, ends: tuple[int, int]
) -> None:
    trades = tape(symbol := next(_names), gaps)
    await service.post("/api/v1/trades", json={"trades": [trade._asdict() for trade in trades]})
    if database.profile == "timescale" and len(gaps) % 2:
        connection = await asyncpg.connect(database.url)
        await retire(connection, "3 days")
        await connection.close()
    expected = oracle.fold(trades, interval)
    assert await told(service, symbol, interval=interval, limit=5000) == expected
    # Ends that lie on trades, hence anywhere in a bucket.
    begin_us, end_us = sorted(trades[number % len(trades)].time_us for number in ends)
    inside = [(opened, bar) for opened, bar in expected.items() if begin_us <= opened < end_us]
    before = [(opened, bar) for opened, bar in expected.items() if opened < end_us]
    asked = {"interval": interval, "limit": limit}
    assert await told(service, symbol, **asked) == dict(list(expected.items())[-limit:])
    assert await told(service, symbol, **asked, from_=begin_us // 1000, to=end_us // 1000) == dict(inside[:limit])
    assert await told(service, symbol, **asked, to=end_us // 1000) == dict(before[-limit:])


async def test_a_week_begins_on_monday_and_fills_like_any_other(service: httpx.AsyncClient) -> None:
    sunday, monday = 1_704_671_999, 1_704_672_000  # 2024-01-07T23:59:59Z
    trades = [
        Trade("WEEK", n, at * 1_000_000, price, "1", "buy")
        for n, (at, price) in enumerate([(sunday, "3"), (monday, "4"), (monday + 3 * 604_800, "5")])
    ]
    await service.post("/api/v1/trades", json={"trades": [trade._asdict() for trade in trades]})
    answer = await service.get("/api/v1/klines/WEEK?interval=1w&from=0&fill=prev&limit=5")
    rows = answer.json()["klines"]
    assert [row["open_time"] // 1000 for row in rows] == [monday + n * 604_800 for n in (-1, 0, 1, 2, 3)]
    assert [(row["close"], row.get("filled", False)) for row in rows] == [
        ("3", False), ("4", False), ("4", True), ("4", True), ("5", False),
    ]  # fmt: skip


async def test_a_width_has_one_name(service: httpx.AsyncClient) -> None:
    await service.post("/api/v1/trades", json={"trades": [tape("NAMES", [1])[0]._asdict()]})
    for given_name, name in (
        ("60s", "1m"),
        ("90s", "90s"),
        ("120m", "2h"),
        ("24h", "1d"),
        ("7d", "1w"),
        ("36h", "36h"),
    ):
        body = (await service.get(f"/api/v1/klines/NAMES?interval={given_name}")).json()
        assert (body["interval"], len(body["klines"])) == (name, 1)


async def test_a_page_is_made_of_a_bounded_number_of_stored_bars(service: httpx.AsyncClient) -> None:
    await service.post("/api/v1/trades", json={"trades": [tape("MANY", [1])[0]._asdict()]})
    url = "/api/v1/klines/MANY?interval=3599s&limit={}"
    assert (await service.get(url.format(83))).status_code == 200
    refused = await service.get(url.format(84))
    assert (refused.status_code, refused.json()["code"]) == (400, "limit_invalid")
    assert refused.json()["detail"] == "limit 84: at most 83 bars of 3599s; each is made of up to 3599 bars of 1s"


DEAR = (
    "/api/v1/klines/QUEUE?interval=59s&limit=5000",
    "/api/v1/klines/QUEUE?interval=59s&limit=5000&fill=prev",
    "/api/v3/klines?symbol=QUEUE&interval=3599s&limit=1000",
    "/udf/history?symbol=QUEUE&resolution=3599S&to=2000000000&countback=80",
    "/api/v3/historicalTrades?symbol=QUEUE&fromId=0",
    "/api/v3/aggTrades?symbol=QUEUE&fromId=0",
)
LIGHT = ("/api/v1/trades/QUEUE", "/api/v3/historicalTrades?symbol=QUEUE", "/api/v3/ticker/price?symbol=QUEUE")
BLOCKED = "SELECT count(*)::int FROM pg_locks WHERE NOT granted AND relation = 'klines_internal.live_klines'::regclass"


async def test_dear_reads_queue_and_light_ones_do_not(plain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dear, "DEAR_SECONDS", 0.2)
    connection = await asyncpg.connect(plain.url)
    async with (
        serving(settings_for(plain, klines_pool_size=3)) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        await client.post("/api/v1/trades", json={"trades": [tape("QUEUE", [1])[0]._asdict()]})
        async with connection.transaction():
            await connection.execute("LOCK TABLE klines_internal.live_klines IN ACCESS EXCLUSIVE MODE")
            # What two ask alike is read once.
            asked = [f"{DEAR[0]}&to={2_000_000_000_000 + number}" for number in range(dear.DEAR_READS)]
            first = [asyncio.create_task(client.get(address)) for address in asked]
            await poll(lambda: connection.fetchval(f"SELECT ({BLOCKED}) = {dear.DEAR_READS}"), PROMISED - 1)
            later = asyncio.gather(*map(client.get, DEAR))
            assert [(await client.get(light)).status_code for light in LIGHT] == [200] * len(LIGHT)
            for refused in await later:
                assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
                assert "reads as dear as this one queue, 2 are served at once" in refused.text
            assert await connection.fetchval(BLOCKED) == dear.DEAR_READS
        assert [(await one).status_code for one in first] == [200] * len(first)
        monkeypatch.undo()
        # Each gave its place back, so that all of them get one in the end.
        assert [answer.status_code for answer in await asyncio.gather(*map(client.get, DEAR * 2))] == [200] * 12
    await connection.close()
