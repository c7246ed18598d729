"""The yardstick of all that stores trades: COPY of the same rows into the same table, without the triggers.

The database is the project's own in the same profile, so types, constraints, the unique index and chunks are the same,
and as durable; only the fold and the tape are gone. Rows are Python values before the time begins.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from typing import Any, TypeVar

import asyncpg
import psutil

from bench.comparison import Sample
from bench.load import cpu_seconds
from bench.stage import Stage
from klines.models import Trade
from klines.timestamp import to_datetime

Row = tuple[Any, ...]
T = TypeVar("T")

COLUMNS = ("token_id", "trade_id", "time", "price", "amount", "side")
BARE = "DROP TRIGGER trades_fold ON public.trades; DROP TRIGGER trades_tape ON public.trades"
REGISTER = "INSERT INTO public.tokens (symbol) SELECT unnest($1::text[]) ORDER BY 1 RETURNING symbol, token_id"
# Checkpoints come when nothing is timed, and every sample begins with one behind it.
EMPTY = """
    SET session_replication_role = replica;
    TRUNCATE public.trades, klines_internal.live_klines, klines_internal.feeds, klines_internal.tape;
    RESET session_replication_role
"""
TRADES = """
    SELECT count(*), encode(sha256(string_agg(
        concat_ws(' ', symbol, time, trade_id, price, amount, side), E'\\n'
        ORDER BY symbol, time, trade_id)::bytea), 'hex')
    FROM public.trades JOIN public.tokens USING (token_id)
"""
BARS = """
    SELECT count(*), encode(sha256(string_agg(
        concat_ws(' ', symbol, bar.time, open, high, low, close, volume, quote_volume, trades, buy_volume,
                  buy_quote_volume, first_trade_id, last_trade_id), E'\\n' ORDER BY symbol, bar.time)::bytea), 'hex')
"""
STORED = BARS + " FROM {relation} AS bar JOIN public.tokens USING (token_id)"
# From the raw trades, by a query that shares nothing with the trigger.
FOLDED = BARS + (
    " FROM public.tokens AS token"
    " CROSS JOIN klines_internal.fold_of_trades_v1(token.token_id, {seconds}, '-infinity', 'infinity') AS bar"
)
# The seams as a running service has them, and then nothing that works beside what is timed.
QUIET = (
    "CALL klines_internal.retire_klines_v1()",
    "SELECT public.alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs",
)
# What refreshing or folding from scratch made in a database without triggers.
MADE = BARS + " FROM {made} AS bar JOIN public.tokens USING (token_id)"
LEVELS = """
    SELECT 'public.' || relation AS relation, coalesce(aggregate, 'public.' || relation) AS made, seconds
    FROM klines_internal.levels ORDER BY seconds
"""


async def executed(url: str, *statements: str) -> None:
    """Run statements on a connection of their own."""
    connection = await asyncpg.connect(url)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


@asynccontextmanager
async def databases(stage: Stage) -> AsyncIterator[tuple[str, str]]:
    """The project's own database, and one without the triggers; no job of theirs runs."""
    async with stage.database("ours") as ours, stage.database("bare") as bare:
        await executed(ours, *quiet(stage))
        await executed(bare, *quiet(stage), BARE)
        yield ours, bare


def quiet(stage: Stage) -> Sequence[str]:
    """What ends the jobs of a database."""
    return QUIET if stage.profile == "timescale" else ()


async def emptied(url: str) -> None:
    """Forget all trades and bars; tokens stay."""
    await executed(url, EMPTY, "CHECKPOINT")


async def registered(url: str, symbols: Iterable[str]) -> dict[str, int]:
    """Register symbols in order; their ids, which are the same in every new database."""
    connection = await asyncpg.connect(url)
    try:
        found = await connection.fetch(REGISTER, sorted(set(symbols)))
    finally:
        await connection.close()
    return {row["symbol"]: row["token_id"] for row in found}


def rows_of(trades: Iterable[Trade], ids: dict[str, int]) -> list[Row]:
    """Trades as rows for COPY."""
    return [
        (ids[one.symbol], one.trade_id, to_datetime(one.time_us), Decimal(one.price), Decimal(one.amount), one.side)
        for one in trades
    ]


def batched(rows: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The rows, so many at a time."""
    return (rows[start : start + size] for start in range(0, len(rows), size))


async def copied(
    url: str, batches: Sequence[Sequence[Row]], postmaster: psutil.Process, connections: int = 1
) -> Sample:
    """COPY batches of rows, a transaction each, in order, on so many connections."""
    async with AsyncExitStack() as stack:
        opened = [await asyncpg.connect(url) for _ in range(connections)]
        for connection in opened:
            stack.push_async_callback(connection.close)
        left = iter(batches)

        async def copy(connection: asyncpg.Connection[Any]) -> None:
            for batch in left:
                await connection.copy_records_to_table("trades", records=batch, columns=COLUMNS)

        client = psutil.Process()
        before = cpu_seconds(postmaster), _own(client)
        began = time.monotonic()
        await asyncio.gather(*map(copy, opened))
        seconds = time.monotonic() - began
        cpu = {"postgres": cpu_seconds(postmaster) - before[0], "client": _own(client) - before[1]}
    return Sample(sum(map(len, batches)), seconds, cpu)


def _own(process: psutil.Process) -> float:
    used = process.cpu_times()
    return used.user + used.system


async def equal_or_raise(ours: str, bare: str, bars: str = FOLDED) -> str:
    """That the trades of two databases are equal, and the bars of one to what `bars` asks of the other; in words."""
    stored, other = await asyncpg.connect(ours), await asyncpg.connect(bare)
    try:
        compared = [("trades", TRADES, TRADES)] + [
            (level["relation"], STORED.format(**level), bars.format(**level)) for level in await other.fetch(LEVELS)
        ]
        counts = []
        for what, one, another in compared:
            found, wanted = await stored.fetchrow(one), await other.fetchrow(another)
            if found != wanted or not found:
                raise RuntimeError(f"{what} differ: {found} here, {wanted} from what was copied")
            counts.append(f"{found[0]} {what.removeprefix('public.')}")
    finally:
        await stored.close()
        await other.close()
    return "digests of all columns equal: " + ", ".join(counts)
