"""`fold`: all bars of a history made anew of its trades, which is why nobody should have to.

PostgreSQL over our table of trades, as rows and (timescale profile) compressed in the columnstore, by the query of our
aggregates; DuckDB and chDB over theirs; polars over a frame in memory. Two threads for who can use them; the bars are
kept in memory or in a temporary table. All digests of bars are equal before anything is timed. Nothing is asked of
the ratios: columnar engines fold faster than PostgreSQL does, and bars that are kept need no folding.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import asyncpg

from bench.comparison import Outcome, Sample, Side, cases, ratio, rounds
from bench.load import cpu_seconds
from bench.ranges import store
from bench.ranges.market import Market, write_market
from bench.ranges.peers import Embedded, engine
from bench.ranges.setting import BARS, digest
from bench.stage import Stage

TRADES = 1_000_000
INTERVALS = {"1s": 1, "1m": 60, "1h": 3600}
ENGINES = ("duckdb", "chdb", "polars")
ROWS, COLUMNS = "PostgreSQL, rows", "TimescaleDB, columnstore"
# A second hypertable of the same trades and the same settings, so that both can be folded in one round.
COMPRESSED = """
    CREATE TABLE compressed (LIKE trades INCLUDING ALL);
    SELECT create_hypertable('compressed', by_range('time', INTERVAL '1 day'), create_default_indexes => false);
    ALTER TABLE compressed SET (
        timescaledb.enable_columnstore, timescaledb.segmentby = 'token_id', timescaledb.orderby = 'time, trade_id');
    INSERT INTO compressed SELECT * FROM trades;
"""
FOLD = """
    SELECT token_id, date_bin(INTERVAL '{seconds} s', time, '2000-01-01Z') AS time,
           (array_agg(price ORDER BY time, trade_id))[1] AS open, max(price) AS high, min(price) AS low,
           (array_agg(price ORDER BY time, trade_id))[count(*)] AS close, sum(amount) AS volume, count(*) AS trades
    FROM {table} GROUP BY 1, 2
"""


async def measure(stage: Stage) -> Outcome:
    """Trades per second of each, for bars of a second, a minute and an hour."""
    market = write_market(stage.folder / "market.parquet", stage.size.of(TRADES))
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(stage.database("folds"))
        await store.load(url, market)
        connection = await stack.enter_async_context(store.connected(url))
        tables = {ROWS: "trades"}
        if stage.profile == "timescale":
            await connection.execute(COMPRESSED)
            await store.compress(connection, "compressed")
            await connection.execute("VACUUM (ANALYZE) compressed")
            tables[COLUMNS] = "compressed"
        engines = {name: await stack.enter_async_context(engine(name, stage.folder)) for name in ENGINES}
        for one in engines.values():
            await one.do("load", file=str(market.file))
        told, ratios = [], []
        for interval, seconds in INTERVALS.items():
            await _agree(connection, tables, engines, seconds)
            sides: dict[str, Side] = {
                name: _Fold(connection, table, seconds, market, stage) for name, table in tables.items()
            } | {name: _Engine(one, seconds, market) for name, one in engines.items()}
            found = await rounds(sides, stage.size.runs)
            told += [case | {"case": f"{interval}: {case['case']}"} for case in cases(found, "trade")]
            others = [ratio(found, name, ROWS) for name in sides if name != ROWS]
            ratios += [one._replace(what=f"{interval}: {one.what}") for one in others]
    return Outcome(told, ratios, f"all bars of {market.trades:,} trades (SHA-256)")


async def _agree(
    connection: asyncpg.Connection[Any], tables: Mapping[str, str], engines: Mapping[str, Embedded], seconds: int
) -> None:
    found = {
        name: await digest(connection, f"{BARS} FROM ({_fold(table, seconds)}) AS bars ORDER BY token_id, time")
        for name, table in tables.items()
    }
    for name, one in engines.items():
        found[name] = await one.do("digest", seconds=seconds)
    if len(set(found.values())) > 1:
        raise RuntimeError(f"the bars differ: {found}")


def _fold(table: str, seconds: int) -> str:
    return FOLD.format(table=table, seconds=seconds)


class _Fold:
    """PostgreSQL's side."""

    def __init__(
        self, connection: asyncpg.Connection[Any], table: str, seconds: int, market: Market, stage: Stage
    ) -> None:
        self._connection, self._statement = connection, f"CREATE TEMP TABLE bars AS {_fold(table, seconds)}"
        self._trades, self._postmaster = market.trades, stage.postmaster

    async def __call__(self) -> Sample:
        begin, before = time.perf_counter(), cpu_seconds(self._postmaster)
        await self._connection.execute(self._statement)
        seconds, used = time.perf_counter() - begin, cpu_seconds(self._postmaster) - before
        await self._connection.execute("DROP TABLE bars")
        return Sample(self._trades, seconds, {"postgres": used})


class _Engine:
    """The side of an engine, which takes the time itself."""

    def __init__(self, engine: Embedded, seconds: int, market: Market) -> None:
        self._engine, self._seconds, self._trades = engine, seconds, market.trades

    async def __call__(self) -> Sample:
        before = self._engine.cpu()
        seconds = await self._engine.do("fold", seconds=self._seconds)
        used = {whose: after - before[whose] for whose, after in self._engine.cpu().items()}
        return Sample(self._trades, seconds, used)
