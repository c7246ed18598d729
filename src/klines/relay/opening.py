"""How a stream begins for a client: with a snapshot, or right after the message whose cursor it has.

Both are read between two turns of the relay, when its feeds stand still: what a client is told first ends exactly
where the hub's next frame begins.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cursor import Cursor, Stream
from klines.hub import Subscriber
from klines.interval import Interval
from klines.queries import klines, trades
from klines.queries.changes import changes
from klines.queries.feeds import sequences
from klines.queries.window import Window
from klines.relay.feed import Feed, Hole, Place, end_of, moment_of, told
from klines.relay.messages import framed

# The seconds of a token stay live for two hours: what ended within one of them can still be told closed.
MAX_AWAY_MS = 3_600_000
# Processes on other machines have other clocks.
MAX_SKEW_MS = 60_000

_INTERVALS = {interval.seconds: interval for interval in Interval}


class Ask(NamedTuple):
    """A stream as a client asks for it; `begun` when it has its snapshot and catches up page by page."""

    stream: Stream
    symbol: str
    history: int
    cursor: Cursor | None = None
    begun: bool = False


class Opening(NamedTuple):
    """The first frames of a stream; without a subscriber there is more to ask for, from `cursor` on."""

    frames: list[bytes]
    subscriber: Subscriber | None
    cursor: Cursor | None = None


class Behind(Exception):
    """Another process has told more than this one's feed has read."""


class Caught(NamedTuple):
    """What follows a cursor: messages, and the place after them."""

    messages: list[str]
    place: Place


async def open_stream(connection: AsyncConnection, feed: Feed, ask: Ask) -> tuple[list[bytes], Place]:
    """The frames that bring a client to the place returned, at the feed's own or short of it; raises `Behind`."""
    caught = await _caught_up(connection, feed, ask.cursor) if ask.cursor else None
    if ask.cursor is None or caught is None:
        rows = await _rows(connection, feed, ask, feed.place)
        recovered = None if ask.cursor is None else False
        return [framed(feed.address(ask.stream).snapshot(rows, feed.cursor(ask.stream), recovered))], feed.place
    frames = [framed(message) for message in caught.messages]
    if not ask.begun:
        given = Place(ask.cursor.sequence, ask.cursor.moment_ms, ask.cursor.ahead)
        rows = await _rows(connection, feed, ask, given) if ask.stream.seconds else ""
        frames.insert(0, framed(feed.address(ask.stream).snapshot(rows, ask.cursor, True)))
    return frames, caught.place


async def _rows(connection: AsyncConnection, feed: Feed, ask: Ask, place: Place) -> str:
    if not ask.history:
        return ""
    window = Window(ask.history)
    if not ask.stream.seconds:
        return await trades.page(connection, feed.token_id, window, until=place.sequence)
    found = await klines.page(connection, feed.token_id, _INTERVALS[ask.stream.seconds], window, place.moment)
    return found.json


async def _caught_up(connection: AsyncConnection, feed: Feed, cursor: Cursor) -> Caught | None:
    """What follows the cursor up to the feed's place, or one page of it; None if nothing can be continued from it."""
    stream = cursor.stream
    begin = Place(cursor.sequence, cursor.moment_ms, cursor.ahead)
    if cursor.epoch != feed.epoch or not await _within_reach(connection, feed, stream, begin):
        return None
    wanted = begin.wanted([stream])._replace(until=feed.place.sequence)
    final = wanted.last == wanted.until
    # On the way nothing is told closed: that a bar is current is certain at the end only.
    moment_ms = feed.place.moment_ms if final else begin.moment_ms
    found = await changes(connection, [wanted], moment_of(moment_ms))
    try:
        reached = end_of(found.taped, begin.sequence)
    except Hole:
        return None
    end = feed.place if final else Place(reached, moment_ms, reached)
    if reached != end.sequence or (reached == begin.sequence and not final):
        return None
    return Caught([one.message for one in told(feed, stream, found, begin, end)], end)


async def _within_reach(connection: AsyncConnection, feed: Feed, stream: Stream, begin: Place) -> bool:
    ahead_ms = begin.moment_ms - feed.place.moment_ms
    if stream.seconds:
        if not -MAX_AWAY_MS <= ahead_ms <= MAX_SKEW_MS:
            return False
        width_ms = stream.seconds * 1000
        if begin.moment_ms // width_ms > feed.place.moment_ms // width_ms:
            raise Behind
    if begin.sequence <= feed.place.sequence:
        return True
    if begin.sequence > (await sequences(connection, [feed.token_id]))[feed.token_id]:
        return False
    raise Behind
