"""A market in our own tables: COPY into `trades`, triggers and all, and the steps that time would bring about.

Nothing runs by itself meanwhile: the database's jobs are off, so that what is measured is in the state that is named.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from bench.ranges.market import Market
from bench.trades import symbols

COLUMNS = ("token", "trade_id", "time", "price", "amount", "side")
# Of a statement's trades; its bars are sorted in memory.
SLICE = 500_000
SESSION = {"work_mem": "128MB", "jit": "off"}


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection for what is done around the measurements."""
    connection = await asyncpg.connect(url, server_settings=SESSION)
    try:
        yield connection
    finally:
        await connection.close()


async def load(url: str, market: Market) -> None:
    """Register the tokens and COPY the trades, halves of the tokens over two connections."""
    async with connected(url) as connection:
        await quiet(connection)
        await connection.execute(
            "INSERT INTO tokens (symbol) SELECT s FROM unnest($1::text[]) WITH ORDINALITY AS t (s, n) ORDER BY n",
            symbols(market.tokens),
        )
        if await connection.fetchval("SELECT max(token_id) FROM tokens") != market.tokens:
            raise RuntimeError("tokens have other numbers than in the file")
        await asyncio.gather(*(_copy_half(url, market, half) for half in (0, 1)))
        await connection.execute("VACUUM (ANALYZE)")


async def quiet(connection: asyncpg.Connection[Any]) -> None:
    """No job of the database runs from here on."""
    if await connection.fetchval("SELECT to_regproc('public.alter_job') IS NOT NULL"):
        await connection.execute(
            "SELECT public.alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs WHERE job_id >= 1000"
        )


async def retire(connection: asyncpg.Connection[Any], seconds: int) -> None:
    """Compress all trades, and let all bars of one interval retire into its aggregate."""
    await compress(connection, "public.trades")
    await refresh(connection, seconds)
    await connection.execute(
        "UPDATE klines_internal.levels SET keep = CASE WHEN seconds = $1 THEN interval '1 day' ELSE '100 years' END",
        seconds,
    )
    await connection.execute("CALL klines_internal.retire_klines_v1()")
    if await connection.fetchval("SELECT count(*) FROM klines_internal.live_klines WHERE seconds = $1", seconds):
        raise RuntimeError("bars did not retire")
    await connection.execute("VACUUM (ANALYZE)")


async def refresh(connection: asyncpg.Connection[Any], seconds: int) -> None:
    """Fill the aggregates up to this interval."""
    levels = await connection.fetch(
        "SELECT aggregate FROM klines_internal.levels WHERE seconds <= $1 ORDER BY seconds", seconds
    )
    for (aggregate,) in levels:
        # Forced: COPY into a table that has our triggers tells TimescaleDB's log of changes nothing.
        await connection.execute(
            f"CALL public.refresh_continuous_aggregate('{aggregate}', '2009-01-01', '2026-06-01',"
            " force => true, options => '{\"buckets_per_batch\": 3600}')"
        )


async def compress(connection: asyncpg.Connection[Any], relation: str) -> None:
    """Move every chunk of a hypertable or an aggregate into its columnstore."""
    for (chunk,) in await connection.fetch("SELECT c::text FROM public.show_chunks($1::regclass) AS c", relation):
        await connection.execute(f"CALL public.convert_to_columnstore('{chunk}')")


async def _copy_half(url: str, market: Market, half: int) -> None:
    slices = _slices(market, half)
    async with connected(url) as connection:
        while (text := await asyncio.to_thread(next, slices, None)) is not None:
            await connection.copy_to_table("trades", source=text, format="csv", columns=["token_id", *COLUMNS[1:]])


def _slices(market: Market, half: int) -> Iterator[io.BytesIO]:
    """Texts for COPY of the trades of half the tokens: of four in a row the two outer ones, or the two inner ones."""
    wanted = pa.array([2, 3] if half else [0, 1], pa.int32())
    for batch in pq.ParquetFile(market.file).iter_batches(SLICE, columns=COLUMNS):
        rows = pa.Table.from_batches([batch])
        rest = pc.bit_wise_and(rows["token"], pa.scalar(3, pa.int32()))
        text = io.BytesIO()
        pyarrow.csv.write_csv(
            rows.filter(pc.is_in(rest, value_set=wanted)),
            text,
            pyarrow.csv.WriteOptions(include_header=False, quoting_style="none"),
        )
        text.seek(0)
        yield text
