"""Whether both sides hold the same bars: by a digest a day and interval and, where those differ, bar by bar.

A source that is written to moves on while it is compared. So what differs is looked at again under the lock of the
token's writers, after the trades that came meanwhile were carried over: then both stand still, for a moment.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from klines.interval import Interval
from klines.transfer import statements
from klines.transfer.contents import DAY, EVER, Span, Token, put_span
from klines.transfer.ends import Ends

MAX_SHOWN = 20
# Of more days there is no catching up while writers wait.
MAX_DAYS = 30
SECOND = timedelta(seconds=1)


class Difference(NamedTuple):
    """A bar that is not the same on both sides; None where there is none."""

    symbol: str
    interval: Interval
    time: datetime
    source: str | None
    target: str | None


class Verdict(NamedTuple):
    """How many bars the source has, how many of them or of the target's differ, and the first `MAX_SHOWN` of those."""

    bars: int
    different: int
    shown: list[Difference]


async def compare(ends: Ends, token: Token) -> Verdict:
    """Compare all bars of a token, catching up with what was written meanwhile."""
    bars, days = 0, set[datetime]()
    for interval in Interval:
        count, differing = await _differing_days(ends, token, interval, EVER)
        bars += count
        days |= differing
    if not days:
        return Verdict(bars, 0, [])
    async with ends.source.transaction():
        if len(days) <= MAX_DAYS:
            await ends.source.execute(statements.LOCK_FEED, token.source_id)
            await _catch_up(ends, token, days)
        different = [one for day in sorted(days) for one in await _differences(ends, token, day)]
    return Verdict(bars, len(different), different[:MAX_SHOWN])


async def _differing_days(ends: Ends, token: Token, interval: Interval, span: Span) -> tuple[int, set[datetime]]:
    """How many bars the source has there, and the days in which one of them differs."""
    query = statements.digests(interval)
    theirs = {row[0]: row[1:] for row in await ends.source.fetch(query, token.source_id, *span)}
    ours = {row[0]: row[1:] for row in await ends.target.fetch(query, token.target_id, *span)}
    days = {day for day in theirs.keys() | ours.keys() if theirs.get(day) != ours.get(day)}
    return sum(count for count, _ in theirs.values()), days


async def _catch_up(ends: Ends, token: Token, days: set[datetime]) -> None:
    """Carry over the trades of the seconds that differ: a trade changes the bar of its second."""
    for day in sorted(days):
        seconds = [one.time for one in await _different(ends, token, Interval.S1, Span(day, day + DAY))]
        if seconds:
            await put_span(ends, token, Span(seconds[0], seconds[-1] + SECOND), lambda _: None)


async def _differences(ends: Ends, token: Token, day: datetime) -> list[Difference]:
    span = Span(day, day + DAY)
    return [
        one
        for interval in Interval
        if (await _differing_days(ends, token, interval, span))[1]
        for one in await _different(ends, token, interval, span)
    ]


async def _different(ends: Ends, token: Token, interval: Interval, span: Span) -> list[Difference]:
    query = statements.bars(interval)
    theirs = dict(await ends.source.fetch(query, token.source_id, *span))
    ours = dict(await ends.target.fetch(query, token.target_id, *span))
    return [
        Difference(token.symbol, interval, time, theirs.get(time), ours.get(time))
        for time in sorted(theirs.keys() | ours.keys())
        if theirs.get(time) != ours.get(time)
    ]
