"""The tape: every committed trade of a token once, in the order of the commits, numbered without a gap, and bounded."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from klines.models import Trade
from klines.retention import TAPE_SECONDS
from klines.writer import TradeWriter, forget_tape
from tests.servers import Database

KEPT = 262_144
STEP = 32_768
OLD_BUT_TEN = """
    INSERT INTO klines_internal.tape (token_id, sequence, taped_at, trade_ids, times, prices, amounts, sides)
    SELECT token_id, n, now() - (n > 10)::int * $2::int * INTERVAL '1 s', '{}', '{}', '{}', '{}', '{}'
    FROM tokens, generate_series(1, $1::int) AS n
"""


def trade(number: int, time_s: int, symbol: str = "PEPE") -> Trade:
    return Trade(symbol, number, time_s * 1_000_000, "0.0012", "5", "buy")


async def tape(connection: asyncpg.Connection[Any], symbol: str = "PEPE") -> list[int]:
    """The trade ids of a token's tape; its rows must be numbered by their trades."""
    rows = await connection.fetch(
        "SELECT sequence, trade_ids, times, prices, amounts, sides"
        " FROM klines_internal.tape JOIN tokens USING (token_id) WHERE symbol = $1 ORDER BY sequence",
        symbol,
    )
    last = rows[0]["sequence"] - len(rows[0]["trade_ids"]) if rows else 0
    for row in rows:
        last += len(row["trade_ids"])
        assert row["sequence"] == last
        assert {len(row[name]) for name in ("times", "prices", "amounts", "sides")} == {len(row["trade_ids"])}
        assert len(row["trade_ids"]) <= 256
    return [number for row in rows for number in row["trade_ids"]]


async def test_order_of_commits_and_within_one_of_time(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write([trade(7, 1_700_000_005), trade(9, 1_700_000_001), trade(8, 1_700_000_001)])
    await writer.write([trade(1, 1_600_000_000), trade(9, 1_700_000_001)])
    await writer.write([trade(1, 1_600_000_000)])
    assert await tape(connection) == [8, 9, 7, 1]


async def test_what_is_rolled_back_leaves_no_gap(connection: asyncpg.Connection[Any], writer: TradeWriter) -> None:
    await writer.write([trade(1, 1_700_000_000)])
    insert = "INSERT INTO trades SELECT token_id, $1, now(), 1, 1, 'buy' FROM tokens"
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute(insert, 2)
    await transaction.rollback()
    async with connection.transaction():
        await connection.execute(insert, 3)
        await connection.execute(insert, 4)
    assert await tape(connection) == [1, 3, 4]


async def test_a_large_statement_makes_short_rows(connection: asyncpg.Connection[Any], writer: TradeWriter) -> None:
    batch = [trade(number, 1_700_000_000 + number) for number in range(1000)]
    await writer.write([*batch, *(trade(number, 1_700_000_000, "OTHER") for number in range(3))])
    assert await tape(connection) == list(range(1000))
    assert await tape(connection, "OTHER") == [0, 1, 2]


async def test_concurrent_writers_of_a_token_share_one_numbering(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await writer.write([trade(0, 1_700_000_000)])
    batches = [[trade(start + n, 1_700_000_000 + n) for n in range(5)] for start in range(1, 200, 5)]
    await asyncio.gather(*(writer.write(batch) for batch in batches))
    written = await tape(connection)
    assert sorted(written) == list(range(201))
    groups = [written[start : start + 5] for start in range(1, 201, 5)]
    assert sorted(groups) == [[one.trade_id for one in batch] for batch in batches]


async def test_the_tape_of_a_token_is_bounded_by_whoever_writes(plain_connection: asyncpg.Connection[Any]) -> None:
    await plain_connection.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
    # As if it had come this far, one trade short of the mark at which the tape is cut.
    await plain_connection.execute(
        "INSERT INTO klines_internal.feeds SELECT token_id, $1, now(), 1, 1 FROM tokens", KEPT + STEP - 1
    )
    await plain_connection.execute(
        "INSERT INTO klines_internal.tape (token_id, sequence, trade_ids, times, prices, amounts, sides)"
        " SELECT token_id, n, ARRAY[n], ARRAY[now()], ARRAY[1], ARRAY[1], ARRAY['buy'::trade_side]"
        " FROM tokens, generate_series(1, $1::int, 1024) AS n",
        KEPT + STEP - 1,
    )
    await plain_connection.execute("INSERT INTO trades SELECT token_id, 1, now(), 1, 1, 'buy' FROM tokens")
    oldest = await plain_connection.fetchval("SELECT min(sequence) FROM klines_internal.tape")
    assert oldest == STEP + 1
    newest = await plain_connection.fetchval("SELECT max(sequence) FROM klines_internal.tape")
    assert newest == KEPT + STEP


async def insert_many(connection: asyncpg.Connection[Any], trades: int) -> int:
    """So many trades in one statement, after all others; the newest place of the feed."""
    await connection.execute(
        "INSERT INTO trades SELECT token_id, coalesce(sequence, 0) + n, TIMESTAMPTZ '2024-01-01', 1, 1, 'buy'"
        " FROM tokens LEFT JOIN klines_internal.feeds USING (token_id), generate_series(1, $1::int) AS n",
        trades,
    )
    newest: int = await connection.fetchval("SELECT sequence FROM klines_internal.feeds")
    return newest


async def test_no_statement_is_too_large_for_the_bound(plain_connection: asyncpg.Connection[Any]) -> None:
    await plain_connection.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
    # Two that are longer than a tape, and after each a statement that moves the cut by itself.
    for trades in (300_000, 33_000, 270_000, 33_000):
        newest = await insert_many(plain_connection, trades)
        cut = newest // STEP * STEP - KEPT
        kept = await tape(plain_connection)
        # A row stays whole as long as one of its trades does.
        assert kept == list(range(kept[0], newest + 1))
        assert cut + 1 - 255 <= kept[0] <= cut + 1


async def test_a_sweep_waits_for_no_writer(plain: Database, plain_connection: asyncpg.Connection[Any]) -> None:
    await plain_connection.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
    await plain_connection.execute(OLD_BUT_TEN, 20, TAPE_SECONDS)
    sweeper = await asyncpg.connect(plain.url, server_settings={"lock_timeout": "5s"})
    async with plain_connection.transaction():
        # As a writer that cuts the tape while it holds, and goes on to wait for, other rows.
        await plain_connection.execute("DELETE FROM klines_internal.tape WHERE sequence = 15")
        await forget_tape(sweeper, TAPE_SECONDS)
        left = await plain_connection.fetch("SELECT sequence FROM klines_internal.tape")
        assert sorted(row["sequence"] for row in left) == list(range(1, 11))
    await sweeper.close()


async def test_what_is_old_is_forgotten_and_the_rest_is_not(plain_connection: asyncpg.Connection[Any]) -> None:
    await plain_connection.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
    await plain_connection.execute(OLD_BUT_TEN, 2510, TAPE_SECONDS)
    await forget_tape(plain_connection, TAPE_SECONDS)
    assert await plain_connection.fetchval("SELECT max(sequence) FROM klines_internal.tape") == 10
