"""Every write to the relations: trades in batches, idempotent by identity, and what is known of tokens.

One batch is one transaction and one statement on `trades`, in key order, so that writers cannot deadlock and the
fold trigger runs once. A repeated trade changes nothing; one with a stored identity and other content is counted as a
conflict and dropped. As most batches repeat nothing, the first attempt is a statement that fails if one does: it costs
the server a third less than one that looks out for it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, LiteralString

import asyncpg
import msgspec

from klines.breaker import Breaker
from klines.database import ACQUIRE_SECONDS, guarded
from klines.errors import InvalidItems, ItemError, Unavailable
from klines.models import Receipt, TokenFacts, Trade, TradeColumns, columns_of
from klines.patience import patience, place
from klines.timestamp import to_datetime

MAX_KNOWN_TOKENS = 100_000
ATTEMPTS = 3
# So many trades are made arrays in a few milliseconds; more of them beside the event loop.
MAX_IN_LOOP = 10_000
# After a batch that repeated trades, so many further ones are expected to do the same.
REPEATING_BATCHES = 64

logger = logging.getLogger("klines.writer")

if TYPE_CHECKING:
    Connection = asyncpg.Connection[Any] | asyncpg.pool.PoolConnectionProxy[Any]

REGISTER: LiteralString = """
    INSERT INTO public.tokens (symbol) SELECT DISTINCT unnest($1::text[]) ORDER BY 1 ON CONFLICT DO NOTHING
"""

TOKEN_IDS: LiteralString = "SELECT symbol, token_id FROM public.tokens WHERE symbol = ANY ($1::text[])"

# Arrays come as texts: of a list the driver would look at every element. In key order, and within a key in that of the
# batch: of equal identities the first stays. An interval times a number is exact, as a double, until the year 2255.
INSERT_NEW: LiteralString = """
    INSERT INTO public.trades (token_id, trade_id, time, price, amount, side)
    SELECT token_id, trade_id, timestamptz 'epoch' + time_us * interval '1 microsecond', price, amount, side
    FROM unnest($1::text::integer[], $2::text::bigint[], $3::text::bigint[], $4::text::numeric[],
                $5::text::numeric[], $6::text::public.trade_side[])
         WITH ORDINALITY AS batch (token_id, trade_id, time_us, price, amount, side, number)
    ORDER BY token_id, time_us, trade_id, number
"""
INSERT: LiteralString = INSERT_NEW + "ON CONFLICT DO NOTHING"

CONFLICTS: LiteralString = """
    SELECT count(*), min(batch.token_id), min(batch.trade_id)
    FROM unnest($1::text::integer[], $2::text::bigint[], $3::text::bigint[], $4::text::numeric[],
                $5::text::numeric[], $6::text::public.trade_side[])
         AS batch (token_id, trade_id, time_us, price, amount, side)
    JOIN public.trades AS stored USING (token_id, trade_id)
    WHERE stored.time = timestamptz 'epoch' + time_us * interval '1 microsecond' AND stored.time BETWEEN $7 AND $8
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

RAISE_FLOOR: LiteralString = "SELECT klines_internal.raise_floor_v1($1)"
FORGET_BELOW: LiteralString = "SELECT klines_internal.forget_below_v1($1)"
# What is dropped in the Timescale profile are whole days.
LEFT_BELOW: LiteralString = "SELECT EXISTS (SELECT FROM public.trades WHERE time < $1::timestamptz - INTERVAL '1 day')"
FORGET_TAPE: LiteralString = "SELECT klines_internal.forget_tape_v1($1)"


class TradeWriter:
    """Writes through a pool, for nobody else; knows the ids of tokens it has seen.

    `waiting` is how many batches wait for a connection.
    """

    def __init__(self, pool: asyncpg.Pool[Any], *, register: bool, breaker: Breaker | None = None) -> None:
        self.waiting = 0
        self._pool = pool
        self._places = asyncio.Semaphore(pool.get_max_size())
        self._register = register
        self._breaker = breaker
        self._token_ids: dict[str, int] = {}
        self._repeating = 0

    async def write(self, trades: TradeColumns | Sequence[Trade]) -> Receipt:
        """Store a batch, all of it or nothing, and answer once it is on disk.

        Raises `InvalidItems` (an unknown symbol where registration is off, a trade older than the retained ones) and
        `Unavailable`; after `Unavailable` the batch may or may not be stored, and writing it again is safe.
        """
        if not trades:
            return Receipt(0, 0, 0, 0)
        batch = columns_of(trades)
        # Before there is a transaction: the server ends one that stands idle, and others wait for its locks.
        arrays = _arrays(batch) if len(batch) <= MAX_IN_LOOP else await asyncio.to_thread(_arrays, batch)
        with guarded(self._breaker):
            for _ in range(ATTEMPTS):
                if (receipt := await self._attempted(batch, arrays)) is not None:
                    return receipt
            raise Unavailable("other writers are in the way", code="database_busy")

    async def _attempted(self, batch: TradeColumns, arrays: Sequence[str]) -> Receipt | None:
        """The receipt; None if it is to be tried again."""
        insert = INSERT if self._repeating else INSERT_NEW
        try:
            async with self._transaction() as connection:
                receipt, fresh = await self._write(connection, insert, batch, arrays)
        except asyncpg.UniqueViolationError:
            if insert is INSERT:
                raise
            self._repeating = REPEATING_BATCHES
            return None
        except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError):
            # Only writers outside the service can cause it: they may lock in another order.
            return None
        except asyncpg.CheckViolationError as error:
            raise InvalidItems(str(error), code=error.constraint_name or "trade_invalid") from None
        # Whoever repeats always is not to fail each time: what fails leaves dead rows behind.
        self._repeating = max(0, self._repeating - 1) if receipt.inserted == len(batch) else REPEATING_BATCHES
        # Only committed ids are remembered: a registration that was rolled back leaves no such token.
        if len(self._token_ids) + len(fresh) <= MAX_KNOWN_TOKENS:
            self._token_ids.update(fresh)
        return receipt

    @asynccontextmanager
    async def _transaction(self) -> AsyncIterator[Connection]:
        """A connection in a transaction, committed in the end or rolled back; a silent server is not waited for."""
        async with self._place():
            try:
                connection = await self._pool.acquire()
                try:
                    async with _in_transaction(connection):
                        yield connection
                finally:
                    await self._pool.release(connection, timeout=ACQUIRE_SECONDS)
            except TimeoutError as error:
                raise ConnectionError("no answer in time") from error

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        # Not the pool's own queue: who waits there for long cannot tell a busy server from one that is gone.
        async with AsyncExitStack() as stack:
            self.waiting += 1
            try:
                await stack.enter_async_context(place(self._places, ACQUIRE_SECONDS))
            finally:
                self.waiting -= 1
            yield

    async def _write(
        self, connection: Connection, insert: LiteralString, batch: TradeColumns, arrays: Sequence[str]
    ) -> tuple[Receipt, dict[str, int]]:
        distinct = set(batch.symbols)
        known = {symbol: self._token_ids[symbol] for symbol in distinct & self._token_ids.keys()}
        fresh = await self._fresh_ids(connection, sorted(distinct - known.keys()))
        texts = {symbol: str(token_id) for symbol, token_id in (known | fresh).items()}
        columns = array_text([texts[symbol] for symbol in batch.symbols]), *arrays
        inserted = int((await connection.execute(insert, *columns)).rpartition(" ")[2])
        conflicts = 0
        if inserted < len(batch):
            times = to_datetime(min(batch.times_us)), to_datetime(max(batch.times_us))
            ((conflicts, *example),) = await connection.fetch(CONFLICTS, *columns, *times)
            if conflicts:
                logger.warning("%d conflicting trades dropped, such as token %s trade %s", conflicts, *example)
        return Receipt(len(batch), inserted, len(batch) - inserted - conflicts, conflicts), fresh

    async def _fresh_ids(self, connection: Connection, missing: list[str]) -> dict[str, int]:
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
        columns = facts.name, facts.base, facts.quote, facts.decimals, facts.supply
        with guarded(self._breaker):
            async with self._transaction() as connection:
                created: bool = await connection.fetchval(
                    PUT_TOKEN, symbol, *columns, msgspec.json.encode(facts.metadata).decode()
                )
        return created


@asynccontextmanager
async def _in_transaction(connection: Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    try:
        async with patience(ACQUIRE_SECONDS):
            await transaction.start()
        yield
        await transaction.commit()
    except TimeoutError:
        connection.terminate()
        raise
    except BaseException:
        await asyncio.shield(_rolled_back(connection, transaction))
        raise


async def _rolled_back(connection: Connection, transaction: asyncpg.transaction.Transaction) -> None:
    try:
        async with asyncio.timeout(ACQUIRE_SECONDS):
            await transaction.rollback()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        connection.terminate()


async def forget_trades(connection: asyncpg.Connection[Any], before: datetime) -> bool:
    """Drop raw trades older than `before` for good; their bars stay, and late trades there are refused from now on.

    False when only the refusing has begun, and dropping is for the next call: a policy had to be moved first, or bars
    were being refreshed.
    """
    # Two statements, hence two transactions: writers must know the floor before a trade below it is gone.
    if not await connection.fetchval(RAISE_FLOOR, before):
        return False
    await connection.execute(FORGET_BELOW, before)
    return not await connection.fetchval(LEFT_BELOW, before)


async def forget_tape(connection: asyncpg.Connection[Any], seconds: int) -> None:
    """Forget what has been on the tape for longer than so many seconds, a little at a time: writers may wait for it."""
    while await connection.fetchval(FORGET_TAPE, seconds):
        pass


def array_text(texts: Iterable[str]) -> str:
    """Numbers and other texts that need no quotes, as PostgreSQL writes an array of them."""
    return "{" + ",".join(texts) + "}"


def _arrays(batch: TradeColumns) -> list[str]:
    numbers = map(str, batch.trade_ids), map(str, batch.times_us)
    return [array_text(texts) for texts in (*numbers, batch.prices, batch.amounts, batch.sides)]
