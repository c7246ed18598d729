"""The database side of an import: all trades into tables of its sessions, then slices of these into `trades`.

Each session has its own tokens, so none waits for another, and all store at the same time. Slices go in the order of
time, each in a transaction of its own with the semantics of `klines.writer`; a session whose trades come nearly in that
order (`klines.importer.slices`) keeps its own. So bars grow as they would have live, other writers wait for one slice
of each session at the most, and an import that was cut off can be run again. A row of a session's table is a slice, its
columns are arrays: cheap to fill, and read once. The table ends with the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import LiteralString, NamedTuple

import asyncpg

from klines.database import CONNECT_SECONDS, connected, translated
from klines.errors import MAX_REPORTED_ITEMS, InvalidItems, ItemError, Unavailable
from klines.importer.filling import Connection, OnProgress, fill
from klines.importer.progress import Step
from klines.importer.reader import Batch
from klines.importer.slices import SLICE_DAYS
from klines.models import Receipt
from klines.timestamp import to_datetime
from klines.writer import ATTEMPTS, REGISTER

# A session is one process of the database server. Storing takes it twice as long as reading takes us, so with two of
# them neither waits much; more would take cores from live writers.
SESSIONS = 2
SLICE_ROWS = 20_000
MAX_SLICE = 2**63 - 1
SESSION = {
    "application_name": "klines import",
    "default_transaction_isolation": "read committed",
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "timescaledb.max_tuples_decompressed_per_dml_transaction": "0",
    "TimeZone": "UTC",
    "jit": "off",
    "temp_buffers": "64MB",
    # The slices differ only in their bounds: a plan that ignores them would be made for none of them.
    "plan_cache_mode": "force_custom_plan",
}

# Arrays are kept as they are: they are written and read once, and to compress them costs more than to store them.
CREATE: LiteralString = """
    CREATE TEMP TABLE incoming (
        slice bigint PRIMARY KEY, earliest bigint, latest bigint,
        symbols text STORAGE EXTERNAL, trade_ids bigint[] STORAGE EXTERNAL, times_us bigint[] STORAGE EXTERNAL,
        prices numeric[] STORAGE EXTERNAL, amounts numeric[] STORAGE EXTERNAL,
        sides public.trade_side[] STORAGE EXTERNAL
    )
"""

# The same trades in new slices, in the order of time, and of the file within one time: at most $1 trades of at most $2
# days, as every day is a chunk that the transaction locks.
REORDER: LiteralString = """
    WITH staged AS MATERIALIZED (DELETE FROM pg_temp.incoming RETURNING *), numbered AS (
        SELECT batch.*, row_number() OVER (ORDER BY time_us, slice, number) - 1 AS place,
               dense_rank() OVER (ORDER BY time_us / 86400000000) - 1 AS day
        FROM staged CROSS JOIN LATERAL unnest(
                 string_to_array(symbols, '/'), trade_ids, times_us, prices, amounts, sides
             ) WITH ORDINALITY AS batch (symbol, trade_id, time_us, price, amount, side, number)
    )
    INSERT INTO pg_temp.incoming
    SELECT min(place), min(time_us), max(time_us), string_agg(symbol, '/' ORDER BY place),
           array_agg(trade_id ORDER BY place), array_agg(time_us ORDER BY place), array_agg(price ORDER BY place),
           array_agg(amount ORDER BY place), array_agg(side ORDER BY place)
    FROM numbered GROUP BY place / $1, day / $2
"""

SLICES: LiteralString = "SELECT slice, earliest, latest, cardinality(trade_ids) FROM pg_temp.incoming ORDER BY slice"

UNREGISTERED: LiteralString = """
    SELECT symbol
    FROM (
        SELECT DISTINCT unnest(string_to_array(symbols, '/')) AS symbol
        FROM pg_temp.incoming WHERE slice BETWEEN $1 AND $2
    ) AS given
    WHERE NOT EXISTS (SELECT FROM public.tokens WHERE tokens.symbol = given.symbol)
    ORDER BY 1 LIMIT $3
"""

# In key order, and within a key in the order of the slice: of two equal identities the first one stays.
# An interval times a number is computed in doubles, which hold every microsecond until the year 2255.
INSERT_NEW: LiteralString = """
    INSERT INTO public.trades (token_id, trade_id, time, price, amount, side)
    SELECT token_id, trade_id, timestamptz 'epoch' + time_us * interval '1 microsecond', price, amount, side
    FROM pg_temp.incoming
    CROSS JOIN LATERAL unnest(string_to_array(symbols, '/'), trade_ids, times_us, prices, amounts, sides)
         WITH ORDINALITY AS batch (symbol, trade_id, time_us, price, amount, side, number)
    JOIN public.tokens USING (symbol)
    WHERE slice = $1
    ORDER BY token_id, time_us, trade_id, number
"""
INSERT: LiteralString = INSERT_NEW + "ON CONFLICT DO NOTHING"

CONFLICTS: LiteralString = """
    SELECT count(*)
    FROM pg_temp.incoming
    CROSS JOIN LATERAL unnest(string_to_array(symbols, '/'), trade_ids, times_us, prices, amounts, sides)
         AS batch (symbol, trade_id, time_us, price, amount, side)
    JOIN public.tokens USING (symbol)
    JOIN public.trades AS stored
      ON stored.token_id = tokens.token_id AND stored.trade_id = batch.trade_id
     AND stored.time = timestamptz 'epoch' + batch.time_us * interval '1 microsecond'
    WHERE slice = $1 AND stored.time BETWEEN $2 AND $3
      AND (stored.price, stored.amount, stored.side) IS DISTINCT FROM (batch.price, batch.amount, batch.side)
"""


# How many trades an array holds is not known to the planner: nested loops would read the stored ones for each of them.
WITHOUT_LOOPS: LiteralString = "SET LOCAL enable_nestloop = off"


class Slice(NamedTuple):
    """A row of the session's table: its times in epoch microseconds, and how many trades it has."""

    number: int
    earliest_us: int
    latest_us: int
    size: int


async def import_trades(
    url: str, batches: Iterator[Batch], *, register: bool, slice_rows: int = SLICE_ROWS, on_progress: OnProgress
) -> Receipt:
    """Store the trades of `batches` in the database at `url`, once the last batch has been read.

    What reading raises is raised here, and nothing was stored. Raises `InvalidItems` for unknown symbols where
    `register` is off, with nothing stored, and for trades older than the retained ones. Raises `Unavailable` when the
    database cannot answer; then some slices may be stored, and importing the file again is safe.
    """
    with _plain_errors():
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(_session(url)) for _ in range(SESSIONS)]
            in_order = await fill(connections, batches, slice_rows, on_progress)
            await _reorder([one for one, kept in zip(connections, in_order, strict=True) if not kept], slice_rows)
            if not register:
                await _refuse_unregistered(connections)
            return await _store(connections, on_progress)


@contextmanager
def _plain_errors() -> Iterator[None]:
    """The first failure of the sessions, as what callers expect."""
    with translated():
        try:
            try:
                yield
            except ExceptionGroup as failed:
                first: Exception = failed.exceptions[0]
                raise first from first.__cause__
        except asyncpg.CheckViolationError as error:
            raise InvalidItems(str(error), code=error.constraint_name or "trade_invalid") from None


@asynccontextmanager
async def _session(url: str) -> AsyncIterator[Connection]:
    connection = await connected(url, server_settings=SESSION)
    try:
        await connection.execute(CREATE)
        yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


async def _reorder(connections: Sequence[Connection], slice_rows: int) -> None:
    async with asyncio.TaskGroup() as group:
        for connection in connections:
            group.create_task(connection.execute(REORDER, slice_rows, SLICE_DAYS))


async def _refuse_unregistered(connections: Sequence[Connection]) -> None:
    found = [
        symbol
        for connection in connections
        for (symbol,) in await connection.fetch(UNREGISTERED, 0, MAX_SLICE, MAX_REPORTED_ITEMS)
    ]
    if found:
        errors = tuple(ItemError(symbol, "is not registered") for symbol in sorted(found)[:MAX_REPORTED_ITEMS])
        detail = f"{errors[0].loc}: unknown symbol, and registration by trade is off; nothing was stored"
        raise InvalidItems(detail, code="symbol_unknown", errors=errors)


async def _store(connections: Sequence[Connection], on_progress: OnProgress) -> Receipt:
    """What became of the slices of all sessions, which store them at the same time."""
    staged = [[Slice(*row) for row in await connection.fetch(SLICES)] for connection in connections]
    rows, total = sum(one.size for slices in staged for one in slices), Receipt(0, 0, 0, 0)

    def add(receipt: Receipt) -> None:
        nonlocal total
        total += receipt
        on_progress(Step("storing", total.received, total.received / rows))

    on_progress(Step("storing", 0, 0.0))
    async with asyncio.TaskGroup() as group:
        for connection, slices in zip(connections, staged, strict=True):
            group.create_task(_Store(connection).store(slices, add))
    return total


class _Store:
    """Stores the slices of a session; once one repeats a stored trade, the further ones are expected to."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._insert = INSERT_NEW

    async def store(self, slices: Sequence[Slice], add: Callable[[Receipt], None]) -> None:
        """One after the other; `add` is told what became of each."""
        for one in slices:
            add(await self._attempted(one))

    async def _attempted(self, one: Slice) -> Receipt:
        failures = 0
        while failures < ATTEMPTS:
            try:
                return await self._stored(one)
            except asyncpg.UniqueViolationError:
                if self._insert is INSERT:
                    raise
                self._insert = INSERT
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
                # Only writers outside the service can cause it: they may lock in another order.
                failures += 1
        raise Unavailable(f"other writers got in the way {ATTEMPTS} times", code="database_busy")

    async def _stored(self, one: Slice) -> Receipt:
        connection = self._connection
        async with connection.transaction():
            fresh = await connection.fetch(UNREGISTERED, one.number, one.number, one.size)
            if fresh:
                await connection.execute(REGISTER, [symbol for (symbol,) in fresh])
            inserted = int((await connection.execute(self._insert, one.number)).rpartition(" ")[2])
            conflicts = 0
            if inserted < one.size:
                await connection.execute(WITHOUT_LOOPS)
                times = to_datetime(one.earliest_us), to_datetime(one.latest_us)
                conflicts = await connection.fetchval(CONFLICTS, one.number, *times)
        return Receipt(one.size, inserted, one.size - inserted - conflicts, conflicts)
