"""The relation contract: the same names, columns and types in both profiles, current to the last commit."""

from __future__ import annotations

import asyncio
import itertools
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from klines import migrations
from klines.database import open_writers
from klines.interval import Interval
from klines.models import Trade
from klines.profile import PROFILES
from klines.tables import metadata
from klines.writer import TradeWriter
from tests.servers import Database

NAMES = {
    "bigint": "BIGINT",
    "integer": "INTEGER",
    "jsonb": "JSONB",
    "numeric": "NUMERIC",
    "text": "TEXT",
    "timestamp with time zone": "DATETIME",
    "trade_side": "VARCHAR(4)",
}


def trade(number: int, **changes: Any) -> Trade:
    return Trade("PEPE", number, 1_700_000_000_000_000 + number, "1", "2", "buy")._replace(**changes)


@pytest.mark.parametrize("relation", list(metadata.tables))
async def test_columns_are_the_documented_ones(connection: asyncpg.Connection[Any], relation: str) -> None:
    found = await connection.fetch(
        "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
        " WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        f"public.{relation}",
    )
    columns = metadata.tables[relation].columns
    assert [(name, NAMES[kind]) for name, kind in found] == [(column.name, str(column.type)) for column in columns]


def test_every_revision_has_both_profiles_or_neither() -> None:
    folders = sorted((migrations.folder() / "sql").iterdir())
    revisions = sorted(file.stem for file in (migrations.folder() / "versions").glob("*.py"))
    assert [folder.name for folder in folders] == revisions
    for folder in folders:
        files = {file.stem for file in folder.glob("*.sql")}
        assert files - {"common"} in (set(), set(PROFILES)), folder.name
        assert files, folder.name


async def test_upgrading_again_changes_nothing(database: Database, profile: str) -> None:
    first = await migrations.upgrade(database.url, profile)
    assert (first.current, first.profile and first.profile.profile) == (first.newest, profile)
    # The wish of today does not change what a database is.
    assert await migrations.upgrade(database.url, "auto") == first


@pytest.mark.parametrize("interval", list(Interval))
async def test_the_bar_is_there_with_the_commit_and_not_before(
    connection: asyncpg.Connection[Any], database: Database, writer: TradeWriter, interval: Interval
) -> None:
    await writer.write([trade(1)])
    count = f"SELECT trades FROM {interval.relation}"
    async with connection.transaction():
        await connection.execute("INSERT INTO trades SELECT token_id, 2, time, price, amount, side FROM trades")
        assert await connection.fetchval(count) == 2
        other = await asyncpg.connect(database.url)
        assert await other.fetchval(count) == 1
    assert await other.fetchval(count) == 2
    await other.close()


@pytest.mark.parametrize(
    "values",
    [
        "1, 1, now(), 'NaN', 1, 'buy'",
        "1, 1, now(), 'Infinity', 1, 'buy'",
        "1, 1, now(), 0, 1, 'buy'",
        "1, 1, now(), 1, -1, 'buy'",
        "1, 1, now(), 1e24, 1, 'buy'",
        "1, 1, now(), 1e-37, 1, 'buy'",
        "1, -1, now(), 1, 1, 'buy'",
        "1, 1, 'infinity', 1, 1, 'buy'",
        "1, 1, '2008-12-31', 1, 1, 'buy'",
        "1, 1, NULL, 1, 1, 'buy'",
        "1, 1, now(), 1, 1, 'hold'",
        "999, 1, now(), 1, 1, 'buy'",
    ],
)
async def test_psql_cannot_store_what_would_poison_a_bar(
    connection: asyncpg.Connection[Any], writer: TradeWriter, values: str
) -> None:
    await writer.write([trade(1)])
    with pytest.raises((asyncpg.IntegrityConstraintViolationError, asyncpg.DataError)):
        await connection.execute(f"INSERT INTO trades VALUES ({values})")
    assert await connection.fetchval("SELECT count(*) FROM klines_1s") == 1


@pytest.mark.parametrize("symbol", ["pepe", "A B", "", "A" * 33, "CAFE\u0301", "A/B"])
async def test_psql_cannot_give_a_token_a_second_spelling(connection: asyncpg.Connection[Any], symbol: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("INSERT INTO tokens (symbol) VALUES ($1)", symbol)


@pytest.mark.parametrize("statement", ["UPDATE trades SET price = 2", "DELETE FROM trades", "TRUNCATE trades"])
async def test_stored_trades_do_not_change(
    connection: asyncpg.Connection[Any], writer: TradeWriter, statement: str
) -> None:
    await writer.write([trade(1)])
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="append only"):
        await connection.execute(statement)


async def test_the_doorbell_names_the_changed_tokens_at_commit(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await connection.add_listener("klines_v1", lambda _, __, ___, payload: heard.put_nowait(str(payload)))
    await writer.write([trade(1), trade(1, symbol="DOGE")])
    ids = sorted(row[0] for row in await connection.fetch("SELECT token_id FROM tokens"))
    assert await asyncio.wait_for(heard.get(), 10) == f"{ids[0]},{ids[1]}"
    # A batch of nothing but repeats rings for nobody: the next ring is that of the next new trade.
    await writer.write([trade(1)])
    await writer.write([trade(2)])
    doge = await connection.fetchval("SELECT token_id FROM tokens WHERE symbol = 'DOGE'")
    assert await asyncio.wait_for(heard.get(), 10) == str(next(id_ for id_ in ids if id_ != doge))
    assert heard.empty()


async def test_too_many_tokens_for_a_payload_ring_for_all(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    heard: asyncio.Queue[str] = asyncio.Queue()
    await connection.add_listener("klines_v1", lambda _, __, ___, payload: heard.put_nowait(str(payload)))
    await writer.write([trade(1, symbol=f"T{number}") for number in range(2000)])
    assert await asyncio.wait_for(heard.get(), 10) == "*"


async def test_sequence_counts_the_trades_of_a_token_in_commit_order(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    batches = [[trade(number) for number in range(start, start + 7)] for start in range(0, 140, 7)]
    await asyncio.gather(*(writer.write(batch) for batch in batches))
    await writer.write(list(itertools.chain(*batches)))
    assert await connection.fetchval("SELECT sequence FROM klines_internal.feeds") == 140


async def test_forgotten_trades_leave_their_bars(
    connection: asyncpg.Connection[Any], database: Database, writer: TradeWriter
) -> None:
    day = 86_400_000_000
    old, new = trade(1), trade(2, time_us=trade(1).time_us + 40 * day)
    await writer.write([old, new])
    for _ in range(2):
        await connection.execute("CALL klines_internal.forget_trades_v1('2023-11-20T00:00:00Z')")
    assert await connection.fetchval("SELECT array_agg(trade_id) FROM trades") == [2]
    assert await connection.fetchval("SELECT sum(trades)::int FROM klines_1d") == 2
    with pytest.raises(Exception, match="older than the retained trades"):
        await writer.write([trade(3)])
    assert await connection.fetchval("SELECT sum(trades)::int FROM klines_1d") == 2


async def test_a_trade_of_the_future_is_refused_from_any_writer(connection: asyncpg.Connection[Any]) -> None:
    await connection.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
    insert = "INSERT INTO trades SELECT token_id, 1, now() + $1, 1, 1, 'buy' FROM tokens"
    with pytest.raises(asyncpg.CheckViolationError, match="lies in the future"):
        await connection.execute(insert, timedelta(hours=2))
    await connection.execute(insert, timedelta(minutes=1))
    assert await connection.fetchval("SELECT count(*) FROM klines_1s") == 1


@pytest.mark.parametrize(
    "statement", ["DELETE FROM tokens", "UPDATE tokens SET symbol = 'OTHER'", "UPDATE tokens SET token_id = DEFAULT"]
)
async def test_a_token_keeps_its_identity(connection: asyncpg.Connection[Any], statement: str) -> None:
    await connection.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
    with pytest.raises(asyncpg.FeatureNotSupportedError, match="keeps its id and its symbol"):
        await connection.execute(statement)
    assert await connection.execute("UPDATE tokens SET name = 'Pepe'") == "UPDATE 1"


async def test_writers_behind_a_held_token_do_not_keep_the_others_waiting(
    connection: asyncpg.Connection[Any], database: Database
) -> None:
    """One transaction left open in psql: its token's writers are told busy, within bounds, and others go on."""
    async with open_writers(database.url, 4) as pool:
        writer = TradeWriter(pool, register=True)
        await writer.write([trade(1), trade(1, symbol="COLD")])
        async with connection.transaction():
            await connection.execute("UPDATE klines_internal.feeds SET sequence = sequence")
            held = [asyncio.create_task(writer.write([trade(number)])) for number in range(2, 14)]
            results = await asyncio.gather(*held, return_exceptions=True)
        assert {getattr(result, "code", None) for result in results} == {"database_busy"}
        assert (await writer.write([trade(2, symbol="COLD")])).inserted == 1


async def test_a_batch_over_ten_years_is_stored(connection: asyncpg.Connection[Any], writer: TradeWriter) -> None:
    day = 86_400_000_000
    batch = [trade(number, time_us=1_300_000_000_000_000 + number * day) for number in range(1500)]
    assert (await writer.write(batch)).inserted == 1500
    assert await connection.fetchval("SELECT count(*) FROM klines_1d") == 1500
