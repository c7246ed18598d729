"""Carries rows over: binary COPY out of the source into a table of the target's session, and from there by one INSERT.

So a trade goes through the same trigger as any other, and bars, feeds and tape are made, not copied. Only bars whose
trades were forgotten come over as bars. Every function may be called again after any interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import BytesIO
from itertools import groupby
from typing import NamedTuple

from klines.errors import BadRequest
from klines.interval import Interval
from klines.transfer import statements
from klines.transfer.ends import Ends

SLICE_ROWS = 20_000
# Every day is a chunk, and every chunk that a transaction touches is a lock of the server's.
SLICE_DAYS = 100
DAY = timedelta(days=1)
DAY_SECONDS = 86_400


class Token(NamedTuple):
    """A token by its id on either side."""

    symbol: str
    source_id: int
    target_id: int


class Span(NamedTuple):
    """A stretch of time, `[since, until)`."""

    since: datetime
    until: datetime


EVER = Span(datetime.fromisoformat(statements.BEGINNING), datetime.fromisoformat(statements.END))


async def carry(ends: Ends, query: str, *arguments: object, into: str, anew: bool = True) -> int:
    """Put what a query finds at the source into a table of the target's session, emptied if `anew`; how many rows."""
    rows = bytearray()

    async def take(part: bytes) -> None:
        rows.extend(part)

    await ends.source.copy_from_query(query, *arguments, output=take, format="binary")
    if anew:
        await ends.target.execute(f"TRUNCATE pg_temp.{into}")
    done = await ends.target.copy_to_table(into, schema_name="pg_temp", source=BytesIO(rows), format="binary")
    return int(done.rpartition(" ")[2])


async def put_tokens(ends: Ends) -> list[Token]:
    """Carry over all tokens and what is known of them; raises `BadRequest` when the target has others."""
    async with ends.target.transaction():
        await ends.target.execute("TRUNCATE pg_temp.incoming_tokens")
        last, rows = 0, SLICE_ROWS
        while rows == SLICE_ROWS:
            rows = await carry(ends, statements.TOKENS, last, SLICE_ROWS, into="incoming_tokens", anew=False)
            last = await ends.target.fetchval(statements.LAST_TOKEN)
        foreign = await ends.target.fetchval(statements.FOREIGN_TOKEN)
        if foreign is not None:
            raise BadRequest(f"--to: has a token {foreign}, which the source has not", code="copy_target_taken")
        await ends.target.execute(statements.PUT_TOKENS)
        return [Token(*row) for row in await ends.target.fetch(statements.PAIRS)]


async def put_keys(ends: Ends) -> int:
    """Carry over the API keys, of which nobody has more than the digests; how many."""
    async with ends.target.transaction():
        rows = await carry(ends, statements.KEYS, into="incoming_keys")
        await ends.target.execute(statements.PUT_KEYS)
    return rows


async def put_forgotten(ends: Ends, token: Token) -> int:
    """Carry over a token's bars whose trades the source has forgotten, all or none of them; how many."""
    days = await ends.source.fetch(statements.DAYS_OF_BARS, token.source_id, ends.floor_before, ends.floor)
    put = 0
    async with ends.target.transaction():
        await carry(ends, statements.FEED, token.target_id, token.source_id, into="incoming_feeds")
        await ends.target.execute(statements.PUT_FEED)
        await ends.target.execute(statements.LOCK_FEED, token.target_id)
        for interval in Interval:
            at_once = max(1, min(SLICE_DAYS, SLICE_ROWS * interval.seconds // DAY_SECONDS))
            for span in _spans([day for (day,) in days], at_once):
                ids = token.target_id, token.source_id
                until = min(span.until, ends.floor)
                query = statements.forgotten_bars(interval)
                put += await carry(ends, query, *ids, span.since, until, ends.floor, into="incoming_bars")
                await ends.target.execute(statements.PUT_BARS, ends.floor)
    return put


async def put_trades(ends: Ends, token: Token, on_slice: Callable[[int], None]) -> int:
    """Carry over the trades of a token's days that the target does not have all of; how many were new to it.

    Raises `BadRequest` when the target has trades that the source has not.
    """
    theirs = dict(await ends.source.fetch(statements.DAYS, token.source_id, ends.floor))
    ours = dict(await ends.target.fetch(statements.DAYS, token.target_id, ends.floor))
    foreign = next((day for day, count in ours.items() if count > theirs.get(day, 0)), None)
    if foreign is not None:
        detail = f"--to: has trades of {token.symbol} on {foreign:%Y-%m-%d} that the source has not"
        raise BadRequest(detail, code="copy_target_taken")
    new = 0
    for missing, days in groupby(theirs, key=lambda day: theirs[day] != ours.get(day)):
        if missing:
            for span in _spans(list(days), SLICE_DAYS):
                new += await put_span(ends, token, span, on_slice)
    return new


async def put_span(ends: Ends, token: Token, span: Span, on_slice: Callable[[int], None]) -> int:
    """Carry over a token's trades of a stretch of time, in transactions of at most `SLICE_ROWS`; how many were new."""
    since, after, new = max(span.since, ends.floor), -1, 0
    while True:
        async with ends.target.transaction():
            place = token.target_id, token.source_id, since, span.until, after
            rows = await carry(ends, statements.TRADES, *place, SLICE_ROWS, into="incoming_trades")
            new += int((await ends.target.execute(statements.PUT_TRADES)).rpartition(" ")[2])
            last = await ends.target.fetchrow(statements.LAST_TRADE)
        on_slice(rows)
        if rows < SLICE_ROWS or last is None:
            return new
        since, after = last


def _spans(days: list[datetime], at_once: int) -> Iterator[Span]:
    """Stretches of so many of these days, which ascend."""
    for number in range(0, len(days), at_once):
        part = days[number : number + at_once]
        yield Span(part[0], part[-1] + DAY)
