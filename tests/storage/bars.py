"""What the storage tests do with a database: write, retire, and compare every bar with the oracle."""

from __future__ import annotations

import decimal
from collections.abc import Iterable
from typing import Any

import asyncpg

from klines.models import Trade
from klines.timestamp import to_us
from tests import oracle

# Products of two 60-digit decimals must not be rounded by the oracle's arithmetic.
decimal.getcontext().prec = 300


async def assert_bars(connection: asyncpg.Connection[Any], symbol: str, trades: Iterable[Trade]) -> None:
    """Every relation of the contract holds exactly the bars of these trades."""
    kept = list(trades)
    for interval in oracle.SECONDS:
        assert await bars(connection, symbol, interval) == oracle.fold(kept, interval), interval


async def bars(connection: asyncpg.Connection[Any], symbol: str, interval: str) -> dict[int, oracle.Bar]:
    """The stored bars of a token by open time in epoch microseconds; a bucket twice is a failure."""
    columns = ", ".join(oracle.Bar._fields)
    rows = await connection.fetch(
        f"SELECT time, {columns} FROM klines_{interval} JOIN tokens USING (token_id) WHERE symbol = $1 ORDER BY time",
        symbol,
    )
    found = {to_us(row["time"]): oracle.Bar(*row[1:]) for row in rows}
    assert len(found) == len(rows), f"{interval}: a bucket appears twice"
    return found


async def stored_trades(connection: asyncpg.Connection[Any], symbol: str) -> list[Trade]:
    """The trades as the database has them."""
    rows = await connection.fetch(
        "SELECT trade_id, time, price, amount, side FROM trades JOIN tokens USING (token_id) WHERE symbol = $1", symbol
    )
    return [Trade(symbol, row[0], to_us(row[1]), str(row[2]), str(row[3]), row[4]) for row in rows]


async def retire(connection: asyncpg.Connection[Any], keep: str) -> None:
    """Let everything older than `keep` retire: refresh all aggregates, move the seams, delete what is equal."""
    await connection.execute(f"UPDATE klines_internal.levels SET keep = INTERVAL '{keep}'")
    for aggregate in await connection.fetch("SELECT aggregate FROM klines_internal.levels ORDER BY seconds"):
        await connection.execute(
            f"CALL refresh_continuous_aggregate('{aggregate[0]}', NULL, now() - INTERVAL '{keep}',"
            " options => '{\"buckets_per_batch\": 3600}')"
        )
    await connection.execute("CALL klines_internal.retire_klines_v1()")
