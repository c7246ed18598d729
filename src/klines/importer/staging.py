"""The database side of an import: all rows into a table of the session, then slices of it into `trades`.

Slices go in the order of time, and of the file within one time, each in a transaction of its own with the semantics
of `klines.writer`. So bars grow as they would have live, other writers wait for one slice at the most, and an import
that was cut off can be run again. The session's table ends with the session.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Any, LiteralString, NamedTuple, TypeAlias

import asyncpg

from klines.database import CONNECT_SECONDS, connected, translated
from klines.errors import MAX_REPORTED_ITEMS, InvalidItems, ItemError, Unavailable
from klines.importer.progress import Step
from klines.importer.reader import Batch
from klines.models import Receipt
from klines.timestamp import to_datetime
from klines.writer import ATTEMPTS, REGISTER

SLICE_ROWS = 20_000
SLICE_DAYS = 100
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

Connection: TypeAlias = "asyncpg.Connection[Any]"
OnProgress = Callable[[Step], None]

CREATE: LiteralString = """
    CREATE TEMP TABLE incoming (
        number bigint, symbol text, trade_id bigint, time_us bigint, price numeric, amount numeric,
        side public.trade_side
    )
"""

# With the symbols in the index and the pages known as visible, only the INSERT visits the rows themselves: a file that
# is in no order would have it visit all of the table for every slice.
ORDER: LiteralString = "CREATE INDEX ON pg_temp.incoming (time_us, number) INCLUDE (symbol)"

MAKE_VISIBLE: LiteralString = "VACUUM (ANALYZE) pg_temp.incoming"

# The last row of the slice that follows the row ($1, $2), and its size: at most $3 rows of at most $4 days, as every
# day is a chunk that the transaction locks.
SLICE_END: LiteralString = """
    SELECT time_us, number, count
    FROM (
        SELECT time_us, number, row_number() OVER slice AS count,
               dense_rank() OVER (ORDER BY time_us / 86400000000) AS day
        FROM (
            SELECT time_us, number FROM pg_temp.incoming
            WHERE (time_us, number) > ($1, $2) ORDER BY time_us, number LIMIT $3
        ) AS following
        WINDOW slice AS (ORDER BY time_us, number)
    ) AS slice
    WHERE day <= $4
    ORDER BY time_us DESC, number DESC LIMIT 1
"""

UNREGISTERED: LiteralString = """
    SELECT symbol
    FROM (
        SELECT DISTINCT symbol FROM pg_temp.incoming
        WHERE (time_us, number) > ($1, $2) AND (time_us, number) <= ($3, $4)
    ) AS slice
    WHERE NOT EXISTS (SELECT FROM public.tokens WHERE tokens.symbol = slice.symbol)
    ORDER BY 1 LIMIT $5
"""

# In key order, and within a key in the order of the file: of two equal identities the first one stays.
# An interval times a number is computed in doubles, which hold every microsecond until the year 2255.
INSERT: LiteralString = """
    INSERT INTO public.trades (token_id, trade_id, time, price, amount, side)
    SELECT token_id, trade_id, timestamptz 'epoch' + time_us * interval '1 microsecond' AS time, price, amount, side
    FROM pg_temp.incoming JOIN public.tokens USING (symbol)
    WHERE (time_us, number) > ($1, $2) AND (time_us, number) <= ($3, $4)
    ORDER BY token_id, time_us, trade_id, number
    ON CONFLICT DO NOTHING
"""

CONFLICTS: LiteralString = """
    SELECT count(*)
    FROM pg_temp.incoming AS slice
    JOIN public.tokens USING (symbol)
    JOIN public.trades AS stored
      ON stored.token_id = tokens.token_id AND stored.trade_id = slice.trade_id
     AND stored.time = timestamptz 'epoch' + slice.time_us * interval '1 microsecond'
    WHERE (slice.time_us, slice.number) > ($1, $2) AND (slice.time_us, slice.number) <= ($3, $4)
      AND stored.time BETWEEN $5 AND $6
      AND (stored.price, stored.amount, stored.side) IS DISTINCT FROM (slice.price, slice.amount, slice.side)
"""


class Place(NamedTuple):
    """A row in the order of the slices."""

    time_us: int
    number: int


BEFORE_ALL = Place(-1, -1)
AFTER_ALL = Place(2**63 - 1, 2**63 - 1)


async def import_trades(
    url: str, batches: Iterator[Batch], *, register: bool, slice_rows: int = SLICE_ROWS, on_progress: OnProgress
) -> Receipt:
    """Store the trades of `batches` in the database at `url`, once the last batch has been read.

    What reading raises is raised here, and nothing was stored. Raises `InvalidItems` for unknown symbols where
    `register` is off, with nothing stored, and for trades older than the retained ones. Raises `Unavailable` when the
    database cannot answer; then some slices may be stored, and importing the file again is safe.
    """
    with translated():
        connection = await connected(url, server_settings=SESSION)
        try:
            rows = await _stage(connection, batches, on_progress)
            if not register:
                await _refuse_unregistered(connection)
            return await _store(connection, rows, slice_rows, on_progress)
        except asyncpg.CheckViolationError as error:
            raise InvalidItems(str(error), code=error.constraint_name or "trade_invalid") from None
        finally:
            await connection.close(timeout=CONNECT_SECONDS)


async def _stage(connection: Connection, batches: Iterator[Batch], on_progress: OnProgress) -> int:
    await connection.execute(CREATE)
    async with aclosing(_copy_texts(batches, on_progress)) as source:
        status = await connection.copy_to_table("incoming", schema_name="pg_temp", source=source)
    await connection.execute(ORDER)
    await connection.execute(MAKE_VISIBLE)
    return int(status.rpartition(" ")[2])


async def _copy_texts(batches: Iterator[Batch], on_progress: OnProgress) -> AsyncGenerator[bytes]:
    """The batches as COPY reads them; the next one is read and checked in a thread while this one is sent."""
    rows = 0
    following = asyncio.create_task(asyncio.to_thread(_next_text, batches))
    try:
        # Shielded: a thread cannot be cancelled, and the file must not be closed under it.
        while (found := await asyncio.shield(following)) is not None:
            following = asyncio.create_task(asyncio.to_thread(_next_text, batches))
            text, count, share = found
            rows += count
            on_progress(Step("checking", rows, share))
            if text:
                yield text
    finally:
        await asyncio.wait([following])
        following.exception()


def _next_text(batches: Iterator[Batch]) -> tuple[bytes, int, float] | None:
    batch = next(batches, None)
    if batch is None:
        return None
    # Nothing here needs COPY's escapes: symbols have no backslash and no white space, the rest is digits.
    numbered = zip(batch.lines, batch.trades, strict=True)
    text = "".join([f"{line}\t{t[0]}\t{t[1]}\t{t[2]}\t{t[3]}\t{t[4]}\t{t[5]}\n" for line, t in numbered])
    return text.encode(), batch.rows, batch.share


async def _refuse_unregistered(connection: Connection) -> None:
    found = await connection.fetch(UNREGISTERED, *BEFORE_ALL, *AFTER_ALL, MAX_REPORTED_ITEMS)
    if found:
        errors = tuple(ItemError(symbol, "is not registered") for (symbol,) in found)
        detail = f"{errors[0].loc}: unknown symbol, and registration by trade is off; nothing was stored"
        raise InvalidItems(detail, code="symbol_unknown", errors=errors)


async def _store(connection: Connection, rows: int, slice_rows: int, on_progress: OnProgress) -> Receipt:
    receipt, after = Receipt(0, 0, 0, 0), BEFORE_ALL
    on_progress(Step("storing", 0, 0.0))
    while (found := await connection.fetchrow(SLICE_END, *after, slice_rows, SLICE_DAYS)) is not None:
        *place, size = found
        last = Place(*place)
        receipt += await _attempted(connection, after, last, size)
        on_progress(Step("storing", receipt.received, receipt.received / rows))
        after = last
    return receipt


async def _attempted(connection: Connection, after: Place, last: Place, size: int) -> Receipt:
    for _ in range(ATTEMPTS):
        try:
            return await _stored(connection, after, last, size)
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            # Only writers outside the service can cause it: they may lock in another order.
            continue
    raise Unavailable(f"other writers got in the way {ATTEMPTS} times", code="database_busy")


async def _stored(connection: Connection, after: Place, last: Place, size: int) -> Receipt:
    bounds = (*after, *last)
    async with connection.transaction():
        fresh = await connection.fetch(UNREGISTERED, *bounds, size)
        if fresh:
            await connection.execute(REGISTER, [symbol for (symbol,) in fresh])
        inserted = int((await connection.execute(INSERT, *bounds)).rpartition(" ")[2])
        conflicts = 0
        if inserted < size:
            times = to_datetime(after.time_us), to_datetime(last.time_us)
            conflicts = await connection.fetchval(CONFLICTS, *bounds, *times)
    return Receipt(size, inserted, size - inserted - conflicts, conflicts)
