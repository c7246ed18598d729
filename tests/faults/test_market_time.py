"""F43, F44, F45: days and years that roll, trades that come late, in any order or twice. Bars stay a pure function."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from typing import Any

import asyncpg
import httpx
import pytest

from klines.models import Trade
from klines.timestamp import to_us
from tests import oracle
from tests.application import serving, settings_for
from tests.faults.load import register
from tests.faults.oracles import Ledger, assert_bars, assert_exact, connected, taped
from tests.live.followers import paired
from tests.servers import Database
from tests.storage.bars import retire

SYMBOL = "PEPE"
US = 1_000_000
DAY_US = 86_400 * US
# Days that begin after a leap day, a year without one, a year, a week 53, and in which clocks change.
ROLLS = (
    *("2020-02-29", "2020-03-01", "2021-01-01", "2021-01-04", "2021-03-01", "2022-01-01", "2023-01-01", "2023-03-01"),
    *("2024-01-01", "2024-02-29", "2024-03-01", "2024-03-10", "2024-03-31", "2024-10-27", "2024-11-03", "2025-01-01"),
)
WIDTHS = oracle.MADE
ODD_ZONE = "Australia/Lord_Howe"  # half an hour of summer time


def trade(number: int, time_us: int, symbol: str = SYMBOL) -> Trade:
    """A trade at a time of its own."""
    return Trade(
        symbol, number, time_us, f"0.0{number % 97 + 10}1", f"{number % 7 + 1}.5", "buy" if number % 2 else "sell"
    )


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service whose database sessions count in an odd zone."""
    async with connected(database.url) as connection:
        await connection.execute(f"ALTER DATABASE \"{database.name}\" SET timezone = '{ODD_ZONE}'")
    async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url, timeout=30) as opened:
        yield opened


@pytest.mark.fault("F43")
async def test_days_weeks_and_years_roll_where_they_do_in_utc(
    database: Database, client: httpx.AsyncClient, figures: Callable[..., None]
) -> None:
    midnights = [to_us(datetime.fromisoformat(f"{day}T00:00:00+00:00")) for day in ROLLS]
    moments = [at + off for at in midnights for off in (-US, -1, 0, 1, 3600 * US - 1, 3600 * US, 7200 * US)]
    trades = [trade(number, at) for number, at in enumerate(moments, 1)]
    random.Random(43).shuffle(trades)  # noqa: S311 - the order of arrival
    ledger = Ledger()
    await register(client, SYMBOL)
    async with paired(str(client.base_url), "1d", "1h", symbol=SYMBOL) as pair:
        for start in range(0, len(trades), 16):
            await ledger.persist(client, *trades[start : start + 16])
        account = await assert_exact(database.url, client, ledger)
        bars = await assert_bars(database.url, client, SYMBOL, *WIDTHS)
        await pair.told(await taped(database.url, SYMBOL))
        pair.stayed()
    days = oracle.fold(trades, "1d")
    assert days.keys() >= {*midnights, *(at - DAY_US for at in midnights)}
    figures("F43", profile=database.profile, rolls=len(ROLLS), bars=bars, **account.figures, gaps=0)


@pytest.mark.slow
@pytest.mark.fault("F44")
async def test_trades_in_any_order_make_the_same_bars(
    database: Database, client: httpx.AsyncClient, figures: Callable[..., None]
) -> None:
    now_us = time.time_ns() // 1000
    trades = [trade(number, now_us - number * 2 * US) for number in range(1, 151)]
    random.Random(44).shuffle(trades)  # noqa: S311 - the order of arrival
    ledger = Ledger()
    await register(client, SYMBOL)
    async with paired(str(client.base_url), "1s", "1m", symbol=SYMBOL) as pair:
        for start in range(0, len(trades), 3):
            await ledger.persist(client, *trades[start : start + 3])
        account = await assert_exact(database.url, client, ledger)
        await pair.told(await taped(database.url, SYMBOL))
        pair.stayed()
        kinds = [message["type"] for _, message in pair.charts[0].heard]
    assert kinds.count("revision") > 100
    told = {"profile": database.profile, "revisions": kinds.count("revision")}
    figures("F44", **told, **account.figures, gaps=0)


@pytest.mark.slow
@pytest.mark.fault("F44")
async def test_a_trade_forty_days_late_changes_a_compressed_bar(
    timescale: Database, figures: Callable[..., None]
) -> None:
    then_us = (time.time_ns() // 1000 - 40 * DAY_US) // DAY_US * DAY_US
    old = [trade(number, then_us + number * 1800 * US) for number in range(1, 41)]
    late = [trade(1000 + number, then_us + number * 1700 * US + number) for number in range(1, 41)]
    random.Random(4).shuffle(late)  # noqa: S311 - the order of arrival
    ledger = Ledger()
    async with (
        serving(settings_for(timescale)) as url,
        httpx.AsyncClient(base_url=url, timeout=60) as client,
        connected(timescale.url) as connection,
    ):
        await register(client, SYMBOL)
        async with paired(url, "1h", symbol=SYMBOL) as pair:
            await ledger.persist(client, *old)
            await retire(connection, "2 days")
            compressed = await compress(connection)
            assert compressed > 0
            for start in range(0, len(late), 8):
                await ledger.persist(client, *late[start : start + 8])
            account = await assert_exact(timescale.url, client, ledger)
            await pair.told(await taped(timescale.url, SYMBOL))
            # And once more after they, too, have retired.
            await retire(connection, "2 days")
            await assert_bars(timescale.url, client, SYMBOL)
    figures("F44", profile="timescale", compressed_chunks=compressed, **account.figures, gaps=0)


async def compress(connection: asyncpg.Connection[Any]) -> int:
    """Compress every chunk of the trades and of the lowest aggregate; how many."""
    chunks = []
    for relation in ("trades", "klines_internal.aggregate_1s"):
        chunks += await connection.fetch(f"SELECT compress_chunk(c) FROM show_chunks('{relation}') c")
    return len(chunks)


@pytest.mark.fault("F45")
async def test_two_feeds_of_the_same_trades_store_each_once(database: Database, figures: Callable[..., None]) -> None:
    now_us = time.time_ns() // 1000
    trades = [
        trade(number, now_us - number * US // 50, symbol) for number in range(1, 201) for symbol in ("PEPE", "WIF")
    ]
    settings = settings_for(database)
    async with (
        serving(settings) as first,
        serving(settings) as second,
        httpx.AsyncClient(base_url=first, timeout=30) as one,
        httpx.AsyncClient(base_url=second, timeout=30) as other,
    ):
        await register(one, "PEPE", "WIF")
        ledger = Ledger()
        async with paired(first, "1s", symbol="PEPE") as here, paired(second, "1s", symbol="WIF") as there:
            receipts = await asyncio.gather(
                *(feed(ledger, to, trades, seed) for seed, to in enumerate((one, other, one)))
            )
            account = await assert_exact(database.url, one, ledger)
            for symbol, pair in (("PEPE", here), ("WIF", there)):
                await pair.told(await taped(database.url, symbol))
                pair.stayed()
    inserted, duplicates, conflicts = map(sum, zip(*receipts, strict=True))
    assert (inserted, duplicates, conflicts) == (len(trades), 2 * len(trades), 0)
    told = {"profile": database.profile, "feeds": 3, "duplicates": duplicates, "conflicts": conflicts}
    figures("F45", **told, **account.figures, gaps=0)


async def feed(ledger: Ledger, client: httpx.AsyncClient, trades: Sequence[Trade], seed: int) -> tuple[int, int, int]:
    """Send all of them in an order and in batches of its own; inserted, duplicates, conflicts."""
    chance = random.Random(seed)  # noqa: S311 - the order of arrival
    left, sums = [*trades], [0, 0, 0]
    chance.shuffle(left)
    while left:
        size = chance.randint(1, 60)
        batch, left = left[:size], left[size:]
        answer = await ledger.post(client, *batch)
        assert answer is not None and answer.status_code == 200, answer
        receipt = answer.json()
        sums = [done + receipt[name] for done, name in zip(sums, ("inserted", "duplicates", "conflicts"), strict=True)]
    return sums[0], sums[1], sums[2]
