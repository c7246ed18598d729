"""Databases to copy, dump and restore: filled with what a service of some age holds."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests import oracle
from tests.servers import Database, Server
from tests.storage.bars import bars

SYMBOLS = ("AAA", "BBB", "OLD")
DAYS = 12
_numbers = itertools.count(1)

TOKENS = """
    INSERT INTO tokens (symbol, name, decimals, supply, metadata)
    VALUES ('AAA', 'Triple', 6, 1000000, '{"site": "x"}'), ('BBB', NULL, NULL, NULL, '{}'), ('OLD', 'Gone', 0, 1, '{}')
"""
# OLD has no trade of the last ten days; the others have them over all days, some at one moment.
TRADES = """
    INSERT INTO trades (token_id, trade_id, time, price, amount, side)
    SELECT token_id, n, $1::timestamptz + n / 2 * 2 * INTERVAL '977 s', (1 + n % 77) * 0.000123, 2.5 + n % 5,
           (CASE WHEN n % 3 = 0 THEN 'buy' ELSE 'sell' END)::trade_side
    FROM tokens, generate_series(0, $2::integer) AS n WHERE symbol <> 'OLD' OR n < 100
"""
KEY = """
    INSERT INTO klines_internal.api_keys (key_id, digest, name, scopes)
    VALUES ('abcdefghijkl', sha256('x'), 'reader', ARRAY['read'])
"""


async def fill(connection: asyncpg.Connection[Any]) -> None:
    """Tokens, trades of the last days, and a key."""
    await connection.execute(TOKENS)
    start = datetime.now(UTC).replace(microsecond=0) - timedelta(days=DAYS)
    await connection.execute(TRADES, start, DAYS * 86400 // 977 - 1)
    await connection.execute(KEY)


async def forget(connection: asyncpg.Connection[Any], days: float) -> None:
    """Forget trades; the second call drops what the first one may have had to leave."""
    before = datetime.now(UTC) - timedelta(days=days)
    for _ in range(2):
        await connection.execute(f"CALL klines_internal.forget_trades_v1('{before.isoformat()}')")


async def holdings(connection: asyncpg.Connection[Any]) -> dict[str, Any]:
    """All that users may see: tokens with what is known of them, trades from the floor on, bars, keys."""
    facts = "symbol, name, base, quote, decimals, supply, metadata, created_at"
    kept = (
        "SELECT symbol, trade_id, time, price, amount, side FROM trades JOIN tokens USING (token_id)"
        " WHERE time >= (SELECT floor FROM klines_internal.retention) ORDER BY symbol, time, trade_id"
    )
    last = "SELECT symbol, last_time, last_trade_id, last_price FROM klines_internal.feeds JOIN tokens USING (token_id)"
    return {
        "tokens": await connection.fetch(f"SELECT {facts} FROM tokens ORDER BY symbol"),
        "trades": await connection.fetch(kept),
        "last": await connection.fetch(f"{last} ORDER BY symbol"),
        "keys": await connection.fetch("SELECT key_id, digest, name, scopes FROM klines_internal.api_keys"),
    } | {
        f"{symbol} {interval}": await bars(connection, symbol, interval)
        for symbol in SYMBOLS
        for interval in oracle.SECONDS
    }


@contextmanager
def empty_database(server: Server) -> Iterator[str]:
    """The URL of a database without anything, dropped at the end."""
    name = f"klines_test_{os.getpid()}_empty_{next(_numbers)}"
    server.execute(f"CREATE DATABASE {name}")
    try:
        yield server.database_url(name)
    finally:
        server.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty(server: Server) -> Iterator[str]:
    with empty_database(server) as url:
        yield url


@pytest.fixture
def other(plain: Database, server: Server) -> Iterator[Database]:
    """A second plain database."""
    with server.database(plain.profile) as made:
        yield made
