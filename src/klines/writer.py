"""Every write to the relations: trades in batches, idempotent by identity, and what is known of tokens.

One batch is one transaction and one statement on `trades`, in key order, so that writers cannot deadlock and the
fold trigger runs once. A repeated trade changes nothing; one with a stored identity and other content is counted as a
conflict and dropped.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString

import asyncpg
import msgspec

from klines.database import ACQUIRE_SECONDS, translated
from klines.errors import InvalidItems, ItemError, Unavailable
from klines.models import Receipt, TokenFacts, Trade
from klines.timestamp import to_datetime

MAX_KNOWN_TOKENS = 100_000
ATTEMPTS = 3

logger = logging.getLogger("klines.writer")

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]

REGISTER: LiteralString = """
    INSERT INTO public.tokens (symbol) SELECT DISTINCT unnest($1::text[]) ORDER BY 1 ON CONFLICT DO NOTHING
"""

TOKEN_IDS: LiteralString = """
    SELECT symbol, token_id FROM public.tokens WHERE symbol = ANY ($1::text[])
"""

# In key order, and within a key in the order of the batch: of two equal identities the first one stays.
INSERT: LiteralString = """
    INSERT INTO public.trades (token_id, trade_id, time, price, amount, side)
    SELECT token_id, trade_id, time, price, amount, side
    FROM unnest($1::integer[], $2::bigint[], $3::timestamptz[], $4::text[]::numeric[], $5::text[]::numeric[],
                $6::text[]::public.trade_side[])
         WITH ORDINALITY AS batch (token_id, trade_id, time, price, amount, side, number)
    ORDER BY token_id, time, trade_id, number
    ON CONFLICT DO NOTHING
"""

CONFLICTS: LiteralString = """
    SELECT count(*), min(batch.token_id), min(batch.trade_id)
    FROM unnest($1::integer[], $2::bigint[], $3::timestamptz[], $4::text[]::numeric[], $5::text[]::numeric[],
                $6::text[]::public.trade_side[]) AS batch (token_id, trade_id, time, price, amount, side)
    JOIN public.trades AS stored USING (token_id, trade_id, time)
    WHERE stored.time BETWEEN $7 AND $8
      AND (stored.price, stored.amount, stored.side) IS DISTINCT FROM (batch.price, batch.amount, batch.side)
"""

PUT_TOKEN: LiteralString = """
    INSERT INTO public.tokens (symbol, name, base, quote, decimals, supply, metadata)
    VALUES ($1, $2, $3, $4, $5, $6::text::numeric, $7::text::jsonb)
    ON CONFLICT (symbol) DO UPDATE SET
        name = excluded.name, base = excluded.base, quote = excluded.quote, decimals = excluded.decimals,
        supply = excluded.supply, metadata = excluded.metadata, updated_at = now()
    RETURNING xmax = 0 AS created
"""


# Writers cut the tape too, in an order of their own: what one of them holds is left to it, as waiting could deadlock.
FORGET_TAPE: LiteralString = """
    WITH forgotten AS (
        DELETE FROM klines_internal.tape WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM klines_internal.tape WHERE taped_at < now() - make_interval(secs => $1) LIMIT 1000
            FOR UPDATE SKIP LOCKED
        )) RETURNING 1
    )
    SELECT count(*) FROM forgotten
"""


class TradeWriter:
    """Writes through a pool; knows the ids of tokens it has seen."""

    def __init__(self, pool: asyncpg.Pool[Any], *, register: bool) -> None:
        self._pool = pool
        self._register = register
        self._token_ids: dict[str, int] = {}

    async def write(self, trades: Sequence[Trade]) -> Receipt:
        """Store a batch, all of it or nothing, and answer once it is on disk.

        Raises `InvalidItems` (an unknown symbol where registration is off, a trade older than the retained ones) and
        `Unavailable`; after `Unavailable` the batch may or may not be stored, and writing it again is safe.
        """
        if not trades:
            return Receipt(0, 0, 0, 0)
        with translated():
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    async with self._pool.acquire(timeout=ACQUIRE_SECONDS) as connection:
                        return await self._write(connection, trades)
                except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                    # Only writers outside the service can cause it: they may lock in another order.
                    if attempt == ATTEMPTS:
                        raise Unavailable("other writers are in the way", code="database_busy") from error
                except asyncpg.CheckViolationError as error:
                    raise InvalidItems(str(error), code=error.constraint_name or "trade_invalid") from None
        raise AssertionError("unreachable")

    async def _write(self, connection: Connection, trades: Sequence[Trade]) -> Receipt:
        async with connection.transaction():
            fresh = await self._fresh_ids(connection, {trade.symbol for trade in trades})
            columns = _columns(trades, self._token_ids | fresh)
            inserted = int((await connection.execute(INSERT, *columns)).rpartition(" ")[2])
            conflicts = 0
            if inserted < len(trades):
                times = columns[2]
                ((conflicts, *example),) = await connection.fetch(CONFLICTS, *columns, min(times), max(times))
                if conflicts:
                    logger.warning("%d conflicting trades dropped, such as token %s trade %s", conflicts, *example)
        # Only committed ids are remembered: a rolled back registration would leave a token that does not exist.
        if len(self._token_ids) + len(fresh) <= MAX_KNOWN_TOKENS:
            self._token_ids.update(fresh)
        return Receipt(len(trades), inserted, len(trades) - inserted - conflicts, conflicts)

    async def _fresh_ids(self, connection: Connection, symbols: set[str]) -> dict[str, int]:
        missing = sorted(symbols - self._token_ids.keys())
        if not missing:
            return {}
        if self._register:
            await connection.execute(REGISTER, missing)
        found: dict[str, int] = dict(await connection.fetch(TOKEN_IDS, missing))
        unknown = [symbol for symbol in missing if symbol not in found]
        if unknown:
            errors = tuple(ItemError(symbol, "is not registered") for symbol in unknown)
            detail = f"{unknown[0]}: unknown symbol, and registration by trade is off; nothing was stored"
            raise InvalidItems(detail, code="symbol_unknown", errors=errors)
        return found

    def forget_tokens(self) -> None:
        """The database is another one: ask it again for the ids of all tokens."""
        self._token_ids.clear()

    async def put_token(self, symbol: str, facts: TokenFacts) -> bool:
        """Replace what is known of a token, registering it if it is new; True when it was."""
        with translated():
            created: bool = await self._pool.fetchval(
                PUT_TOKEN,
                symbol,
                facts.name,
                facts.base,
                facts.quote,
                facts.decimals,
                facts.supply,
                msgspec.json.encode(facts.metadata).decode(),
            )
        return created


async def forget_trades(connection: asyncpg.Connection[Any], before: datetime) -> None:
    """Drop raw trades older than `before` for good; their bars stay, and late trades there are refused from now on."""
    # A procedure that commits on its own cannot be prepared, so its argument is written out: it is a datetime.
    await connection.execute(f"CALL klines_internal.forget_trades_v1('{before.isoformat()}')")


async def forget_tape(connection: asyncpg.Connection[Any], seconds: int) -> None:
    """Forget what has been on the tape for longer than so many seconds, a little at a time: writers may wait for it."""
    while await connection.fetchval(FORGET_TAPE, seconds):
        pass


def _columns(trades: Sequence[Trade], token_ids: dict[str, int]) -> tuple[list[Any], ...]:
    symbols, trade_ids, times, prices, amounts, sides = zip(*trades, strict=True)
    return (
        [token_ids[symbol] for symbol in symbols],
        list(trade_ids),
        [to_datetime(time_us) for time_us in times],
        list(prices),
        list(amounts),
        list(sides),
    )
