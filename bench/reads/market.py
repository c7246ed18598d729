"""What reads are measured on: tokens with a bar in every minute, and their pages as SQL rows alone make them.

Trades are made in the database, by integer arithmetic on their number: the same in every run but for their dates, which
must be recent, or the bars would retire in the middle of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from bench.stage import Stage
from klines.writer import REGISTER, TOKEN_IDS

MINUTE_MS = 60_000
PAGE = 500
# Of a minute of a token, at odd seconds of it.
TRADES = 3
RECENT_MINUTES = 3_000
# Recent bars end that long ago, so that all of them are closed.
REST_MINUTES = 5
OLD_DAYS = 30
DECIMALS = ("open", "high", "low", "close", "volume", "quote_volume")

FILL = """
INSERT INTO trades (token_id, trade_id, time, price, amount, side)
SELECT $1, number, $2::timestamptz + number / $4 * INTERVAL '1 minute' + number % $4 * INTERVAL '17 seconds',
       (1000000 + number * 7919 % 40009) * 0.000000001, (1 + number * 104729 % 9999991) * 0.001,
       CASE WHEN number % 3 = 0 THEN 'sell' ELSE 'buy' END::trade_side
FROM generate_series(0, $3::bigint * $4 - 1) AS number
"""
BARS = """
SELECT (extract(epoch FROM time) * 1000)::bigint AS open_time, k.* FROM klines_1m AS k
WHERE token_id = $1 AND time >= to_timestamp($2::bigint / 1000.0) AND time < to_timestamp($3::bigint / 1000.0)
ORDER BY time
"""


class Token(NamedTuple):
    """A token with bars of a minute each from `first_ms` to `end_ms`, without a gap."""

    symbol: str
    token_id: int
    first_ms: int
    end_ms: int


class Market(NamedTuple):
    """A database at `url`, a connection to it, and its tokens: with recent bars, and with bars that have retired."""

    url: str
    connection: asyncpg.Connection[Any]
    recent: list[Token]
    retired: list[Token]


@asynccontextmanager
async def market(stage: Stage, recent: int, retired: int = 0) -> AsyncIterator[Market]:
    """So many tokens of each kind, in a database of its own."""
    end_ms = (int(time.time() * 1000) // MINUTE_MS - REST_MINUTES) * MINUTE_MS
    async with stage.database("reads") as url:
        connection = await asyncpg.connect(url)
        try:
            young = await _tokens(connection, [f"BENCH{number:03}-SOL" for number in range(recent)], end_ms)
            old_ms = end_ms - OLD_DAYS * 24 * 60 * MINUTE_MS
            old = await _tokens(connection, [f"OLD{number:03}-SOL" for number in range(retired)], old_ms)
            if old:
                await _retire(connection, old_ms)
            await connection.execute("VACUUM ANALYZE")
            yield Market(url, connection, young, old)
        finally:
            await connection.close()


def path(token: Token, from_ms: int | None = None) -> str:
    """The address of a page: the latest bars, or those of so many minutes from a time."""
    wanted = "" if from_ms is None else f"&from={from_ms}&to={from_ms + PAGE * MINUTE_MS}"
    return f"/api/v1/klines/{token.symbol}?interval=1m&limit={PAGE}{wanted}"


async def page(connection: asyncpg.Connection[Any], token: Token, from_ms: int, to_ms: int) -> Any:
    """What the body of a page of closed bars says, made of rows and of nothing that the service has."""
    rows = await connection.fetch(BARS, token.token_id, from_ms, to_ms)
    return {"symbol": token.symbol, "interval": "1m", "klines": [_bar(row) for row in rows]}


def same(body: bytes, expected: Any) -> bool:
    """Whether a body says this, to the last digit and in this order of members."""
    return body == json.dumps(expected, separators=(",", ":")).encode()


def _bar(row: asyncpg.Record) -> dict[str, Any]:
    opened = row["open_time"]
    return {
        "open_time": opened,
        "close_time": opened + MINUTE_MS - 1,
        **{name: _text(row[name]) for name in DECIMALS},
        "trades": row["trades"],
        "buy_volume": _text(row["buy_volume"]),
        "buy_quote_volume": _text(row["buy_quote_volume"]),
        "first_trade_id": row["first_trade_id"],
        "last_trade_id": row["last_trade_id"],
        "closed": True,
    }


def _text(value: Decimal) -> str:
    text = f"{value:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


async def _tokens(connection: asyncpg.Connection[Any], symbols: list[str], end_ms: int) -> list[Token]:
    await connection.execute(REGISTER, symbols)
    ids = {row["symbol"]: row["token_id"] for row in await connection.fetch(TOKEN_IDS, symbols)}
    first_ms = end_ms - RECENT_MINUTES * MINUTE_MS
    for symbol in symbols:
        begin = await connection.fetchval("SELECT to_timestamp($1::bigint / 1000.0)", first_ms)
        await connection.execute(FILL, ids[symbol], begin, RECENT_MINUTES, TRADES)
    return [Token(symbol, ids[symbol], first_ms, end_ms) for symbol in symbols]


async def _retire(connection: asyncpg.Connection[Any], end_ms: int) -> None:
    """Let the bars before a time retire into their aggregates; only the Timescale profile has such."""
    until = await connection.fetchval("SELECT to_timestamp($1::bigint / 1000.0)::text", end_ms + 24 * 60 * MINUTE_MS)
    for row in await connection.fetch("SELECT aggregate FROM klines_internal.levels ORDER BY seconds"):
        options = "options => '{\"buckets_per_batch\": 3600}'"
        await connection.execute(f"CALL refresh_continuous_aggregate('{row[0]}', NULL, '{until}', {options})")
    await connection.execute("CALL klines_internal.retire_klines_v1()")
    left = await connection.fetchval(
        "SELECT count(*) FROM klines_internal.live_klines WHERE seconds = 60 AND time < $1::text::timestamptz", until
    )
    if left:
        raise RuntimeError(f"{left} bars did not retire")
