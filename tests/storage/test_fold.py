"""Bars are a pure function of the stored trades, whatever the order, batching, lateness or number of writers."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from klines.models import Trade
from klines.writer import TradeWriter
from tests.oracle import stored
from tests.storage.bars import assert_bars, retire, stored_trades

SECOND = 1_000_000
MINUTE = 60 * SECOND
DAY = 1440 * MINUTE
NOW = time.time_ns() // 1000

_names = itertools.count(1)


def symbol() -> str:
    """A token of its own for every example: they share a database."""
    return f"TAPE{next(_names)}"


def decimals(digits: int) -> st.SearchStrategy[str]:
    """Positive decimals from dust to fortunes, as text."""
    mantissa = st.integers(1, 10**digits - 1)
    return st.builds(lambda value, scale: f"{value}e-{scale}", mantissa, st.integers(0, 30))


# Few distinct moments and ids, so that ties, repeats and conflicts are common; some lie days back.
moments = st.one_of(
    st.integers(0, 5).map(lambda n: NOW - n * SECOND),
    st.integers(0, 300).map(lambda n: NOW - n * SECOND // 3),
    st.integers(0, 200).map(lambda n: NOW - n * MINUTE),
    st.integers(0, 3000).map(lambda n: NOW - n * 7 * MINUTE),
    st.sampled_from([NOW // DAY * DAY, NOW // DAY * DAY - 1, NOW // DAY * DAY - 2 * DAY]),
)
trades = st.builds(
    Trade,
    symbol=st.just(""),
    trade_id=st.integers(1, 12),
    time_us=moments,
    price=decimals(12),
    amount=decimals(12),
    side=st.sampled_from(["buy", "sell"]),
)
tapes = st.lists(st.lists(trades, min_size=1, max_size=12), min_size=1, max_size=8)

examples = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def named(tape: list[list[Trade]], name: str) -> list[list[Trade]]:
    return [[trade._replace(symbol=name) for trade in batch] for batch in tape]


@examples
@given(tape=tapes)
async def test_any_tape_in_any_batches(
    connection: asyncpg.Connection[Any], writer: TradeWriter, tape: list[list[Trade]]
) -> None:
    name = symbol()
    batches = named(tape, name)
    receipts = [await writer.write(batch) for batch in batches]
    kept = stored(itertools.chain(*batches))
    assert sum(receipt.inserted for receipt in receipts) == len(kept)
    assert sum(receipt.received for receipt in receipts) == sum(map(len, batches))
    await assert_bars(connection, name, kept)


@examples
@given(tape=tapes, again=st.randoms(use_true_random=False))
async def test_repeating_and_reordering_changes_nothing(
    connection: asyncpg.Connection[Any], writer: TradeWriter, tape: list[list[Trade]], again: Any
) -> None:
    name = symbol()
    kept = stored(itertools.chain(*named(tape, name)))
    shuffled = list(kept)
    again.shuffle(shuffled)
    for start in range(0, len(shuffled), 5):
        await writer.write(shuffled[start : start + 5])
    repeated = await writer.write(kept)
    assert (repeated.inserted, repeated.duplicates, repeated.conflicts) == (0, len(kept), 0)
    await assert_bars(connection, name, kept)


@settings(examples, max_examples=15)
@given(tape=tapes)
async def test_three_writers_at_once(
    connection: asyncpg.Connection[Any], writer: TradeWriter, tape: list[list[Trade]]
) -> None:
    name, other = symbol(), symbol()
    # Each batch names two tokens, and each writer has them in another order: the worst for locks.
    batches = [mine + theirs for mine, theirs in zip(named(tape, name), named(tape, other), strict=True)]

    async def write(order: list[list[Trade]]) -> None:
        for batch in order:
            await writer.write(batch[::-1] if order is batches else batch)

    await asyncio.gather(write(batches), write(batches[::-1]), write(batches[1:] + batches[:1]))
    identities = {(trade.trade_id, trade.time_us) for trade in itertools.chain(*named(tape, name))}
    for token in (name, other):
        kept = await stored_trades(connection, token)
        # Of conflicting trades any may have come first; the bars must be those of the one that did.
        assert {(trade.trade_id, trade.time_us) for trade in kept} == identities
        await assert_bars(connection, token, kept)


async def test_a_psql_insert_and_a_copy_keep_bars_right(
    connection: asyncpg.Connection[Any], writer: TradeWriter
) -> None:
    await connection.execute("INSERT INTO tokens (symbol) VALUES ('BYHAND')")
    token = await connection.fetchval("SELECT token_id FROM tokens")
    await connection.execute(
        "INSERT INTO trades SELECT $1, n, now() - n * INTERVAL '7 s', n * 0.000000001, n, 'buy'"
        " FROM generate_series(1, 500) AS n",
        token,
    )
    records = await connection.fetch("SELECT token_id, trade_id + 1000, time, price, amount, side FROM trades")
    await connection.copy_records_to_table("trades", records=[tuple(row) for row in records])
    await assert_bars(connection, "BYHAND", await stored_trades(connection, "BYHAND"))
    assert len(await stored_trades(connection, "BYHAND")) == 1000


@settings(examples, max_examples=15)
@given(
    early=tapes,
    late=tapes,
    keeps=st.lists(st.sampled_from(["0 s", "7 s", "90 s", "20 min", "5 hours", "2 days"]), min_size=1, max_size=3),
)
async def test_the_seam_at_any_position(
    timescale_connection: asyncpg.Connection[Any],
    timescale_writer: TradeWriter,
    early: list[list[Trade]],
    late: list[list[Trade]],
    keeps: list[str],
) -> None:
    """Bars retire, late trades bring them back, they retire again: the relations never show it."""
    connection, name = timescale_connection, symbol()
    written: list[Trade] = []
    for batch in named(early, name):
        await timescale_writer.write(batch)
        written += batch
    for keep in sorted(keeps, key=["2 days", "5 hours", "20 min", "90 s", "7 s", "0 s"].index):
        await retire(connection, keep)
        await assert_bars(connection, name, stored(written))
        for batch in named(late, name):
            await timescale_writer.write(batch)
            written += batch
            await assert_bars(connection, name, stored(written))
    await retire(connection, "0 s")
    await assert_bars(connection, name, stored(written))
    assert await connection.fetchval("SELECT count(*) FROM klines_internal.disagreements") == 0


@pytest.mark.parametrize("seconds", [1, 60, 3600, 86400])
async def test_bars_really_retire(
    timescale_connection: asyncpg.Connection[Any], timescale_writer: TradeWriter, seconds: int
) -> None:
    old = [Trade("OLD", n, NOW - 10 * DAY + n * SECOND, "1.5", "2", "buy") for n in range(300)]
    await timescale_writer.write(old)
    live = "SELECT count(*) FROM klines_internal.live_klines WHERE seconds = $1"
    assert await timescale_connection.fetchval(live, seconds) > 0
    await retire(timescale_connection, "1 day")
    assert await timescale_connection.fetchval(live, seconds) == 0
    await assert_bars(timescale_connection, "OLD", old)
