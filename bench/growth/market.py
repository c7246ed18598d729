"""A market of a size: a migrated database with so many trades of so many tokens in the last two days, and its service.

Trades come in by COPY through the triggers, as a bulk import of anybody's would. Two days are what the service keeps
at hand whatever the profile; TimescaleDB's jobs are switched off, so that none runs beside one size and not another.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg

from bench.stage import Service, Stage
from bench.trades import generated, symbols
from klines.models import Trade
from klines.timestamp import to_datetime
from klines.writer import REGISTER, TOKEN_IDS

DAYS = 2
BLOCK = 50_000
COLUMNS = ("token_id", "trade_id", "time", "price", "amount", "side")
# How many bars of a token are not what its trades make, or are missing.
WRONG = """
    WITH made AS (
        SELECT bar.* FROM klines_internal.levels AS l
        CROSS JOIN LATERAL klines_internal.fold_of_trades_v1($1, l.seconds, '-infinity', 'infinity') AS bar
    ), stored AS (
        SELECT * FROM klines_internal.live_klines WHERE token_id = $1
    )
    SELECT count(*) FROM (
        (TABLE made EXCEPT TABLE stored) UNION ALL (TABLE stored EXCEPT TABLE made)
    ) AS wrong
"""
JOBS_OFF = "SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs"


class Market(NamedTuple):
    """The service on a market, the tokens, how many trades there are, and microseconds that one took to store."""

    service: Service
    connection: asyncpg.Connection[Any]
    symbols: list[str]
    trades: int
    fill_us: float


@asynccontextmanager
async def market(stage: Stage, name: str, trades: int, tokens: int) -> AsyncIterator[Market]:
    """A market, whose bars were compared with its trades; the service runs while the context is open."""
    async with stage.database(name) as url:
        connection = await asyncpg.connect(url)
        try:
            if stage.profile == "timescale":
                await connection.execute(JOBS_OFF)
            seconds = await _filled(connection, trades, tokens)
            await _settled(connection)
            with stage.serving(url) as service:
                yield Market(service, connection, symbols(tokens), trades, seconds / trades * 1e6)
        finally:
            await connection.close()


async def _filled(connection: asyncpg.Connection[Any], trades: int, tokens: int) -> float:
    """Seconds in COPY; the next block is made meanwhile."""
    await connection.execute(REGISTER, symbols(tokens))
    ids = {row["symbol"]: row["token_id"] for row in await connection.fetch(TOKEN_IDS, symbols(tokens))}
    start_us = time.time_ns() // 1000 - DAYS * 86_400_000_000
    made = _blocks(generated(trades, tokens, DAYS * 86_400, start_us=start_us), ids)
    spent, block = 0.0, await asyncio.to_thread(next, made, None)
    while block:
        began = time.monotonic()
        copying = asyncio.create_task(
            connection.copy_to_table("trades", source=io.BytesIO(block), columns=COLUMNS, format="csv")
        )
        block, _ = await asyncio.gather(asyncio.to_thread(next, made, None), copying)
        spent += time.monotonic() - began
    return spent


def _blocks(trades: Iterator[Trade], ids: dict[str, int]) -> Iterator[bytes]:
    while rows := list(itertools.islice(trades, BLOCK)):
        lines = (
            f"{ids[row.symbol]},{row.trade_id},{to_datetime(row.time_us).isoformat()},{row.price},{row.amount},{row.side}\n"
            for row in rows
        )
        yield "".join(lines).encode()


async def _settled(connection: asyncpg.Connection[Any]) -> None:
    await connection.execute("VACUUM (ANALYZE) public.trades")
    await connection.execute("VACUUM (ANALYZE) klines_internal.live_klines")
    await connection.execute("CHECKPOINT")
    # A busy token and the one in the middle; ids are given in the order of how busy they are.
    for token in (10, await connection.fetchval("SELECT (count(*) + 1) / 2 FROM tokens")):
        if wrong := await connection.fetchval(WRONG, token):
            raise RuntimeError(f"{wrong} bars of token {token} are not what its trades make")
