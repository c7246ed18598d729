"""A market with known trades: what the recipes and the dashboard are asked about, and what the answers must be."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NamedTuple

import asyncpg

from klines.database import open_writers
from klines.models import Side, Trade
from klines.queries.analyst import ROLE
from klines.writer import TradeWriter
from tests import oracle
from tests.servers import Database
from tests.storage.bars import retire

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MOONCAT, WIFHAT, GRAVE = "MOONCAT-SOL", "WIFHAT-USDC", "GRAVE-SOL"
SUPPLY = Decimal(1_000_000_000)


class Market(NamedTuple):
    """A database, and the trades of each of its tokens by (time, trade_id)."""

    database: Database
    trades: dict[str, list[Trade]]

    def bars(self, symbol: str, interval: str, since: int) -> list[tuple[int, oracle.Bar]]:
        """The bars that begin at `since` (epoch microseconds) or later, ascending."""
        return [(at, bar) for at, bar in oracle.fold(self.trades[symbol], interval).items() if at >= since]

    def since(self, symbol: str, since: int) -> list[Trade]:
        """The trades at `since` or later."""
        return [trade for trade in self.trades[symbol] if trade.time_us >= since]

    def price_at(self, symbol: str, at: int) -> Decimal | None:
        """The price of the last trade by then, at most two days older."""
        found = [trade for trade in self.trades[symbol] if at - 2 * DAY <= trade.time_us <= at]
        return Decimal(found[-1].price) if found else None


def known_trades() -> dict[str, list[Trade]]:
    """A lively token with holes, another one, and one that died a day ago; a third of the trades lie weeks back."""
    chance = random.Random(20261123)  # noqa: S311 - prices, not secrets
    now = time.time_ns() // 1000
    hours = [(hour, MOONCAT) for hour in range(26) if hour not in {2, 9, 10}]
    hours += [(hour, WIFHAT) for hour in range(26) if hour != 5]
    spans = [(symbol, now - (hour + 1) * HOUR, HOUR, 40) for hour, symbol in hours]
    spans += [(MOONCAT, now - 60 * DAY, 58 * DAY, 400), (GRAVE, now - 32 * HOUR, 7 * HOUR, 30)]
    times = [(symbol, start + chance.randrange(width)) for symbol, start, width, count in spans for _ in range(count)]
    made: dict[str, list[Trade]] = {MOONCAT: [], WIFHAT: [], GRAVE: []}
    for symbol, at in sorted(times, key=lambda pair: pair[1]):
        number = len(made[symbol]) + 1
        price = f"0.{chance.randrange(1_000, 2_000):08d}"
        side: Side = "buy" if chance.random() < 0.6 else "sell"
        made[symbol].append(Trade(symbol, number, at, price, f"{chance.randrange(1, 10**7)}.{number % 10}", side))
    return made


async def fill(database: Database) -> dict[str, list[Trade]]:
    """Write the market; in the Timescale profile all but the latest three hours of bars have retired."""
    trades = known_trades()
    async with open_writers(database.url, 1) as pool:
        await TradeWriter(pool, register=True).write([trade for tape in trades.values() for trade in tape])
    connection = await asyncpg.connect(database.url)
    await connection.execute("UPDATE tokens SET supply = $1 WHERE symbol = $2", SUPPLY, MOONCAT)
    if database.profile == "timescale":
        await retire(connection, "3 hours")
        assert await connection.fetchval("SELECT count(*) > 0 FROM klines_internal.retired_1m")
    await connection.execute("ANALYZE")
    await connection.close()
    return trades


@asynccontextmanager
async def as_analyst(database: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A read-only transaction with the rights of the analyst's role; its `now()` stands still."""
    connection = await asyncpg.connect(database.url)
    try:
        await connection.execute(f"SET ROLE {ROLE}")
        async with connection.transaction(readonly=True):
            yield connection
    finally:
        await connection.close()
