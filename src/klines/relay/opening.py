"""How a stream begins for a client: with a snapshot, or right after the message whose cursor it has.

One read brings the feed up to date, shows the bars and continues from the cursor, all at one moment: what a client is
told first ends exactly where the hub's next frame begins, and what the database acknowledged before is in it.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cursor import Cursor, Place, Stream
from klines.dear import is_dear
from klines.hub import Subscriber
from klines.interval import Width
from klines.queries import trades
from klines.queries.changes import Answer, Changes, Moment, Shown, Wanted, changes
from klines.queries.window import Window
from klines.relay.feed import Feed, Hole, place_after, told
from klines.relay.messages import framed

# The seconds of a token stay live for two hours: what ended within one of them can still be told closed.
MAX_AWAY_MS = 3_600_000
# Processes on other machines have other clocks: so long an opening waits for its own.
MAX_SKEW_MS = 2_000


class Ask(NamedTuple):
    """A stream as a client asks for it; `begun` when it has its snapshot and catches up page by page."""

    stream: Stream
    symbol: str
    history: int
    cursor: Cursor | None = None
    begun: bool = False
    recovered: bool | None = None

    @property
    def dear(self) -> bool:
        """Whether its snapshot is a dear read."""
        return bool(self.stream.seconds) and not self.begun and is_dear(self.history, Width(self.stream.seconds))

    def anew(self) -> Ask:
        """The same after its cursor turned out to lead nowhere."""
        return self._replace(cursor=None, recovered=False)


class Opening(NamedTuple):
    """The first frames of a stream; without a subscriber there is more to ask for, from `cursor` on."""

    frames: list[bytes]
    subscriber: Subscriber | None
    cursor: Cursor


class Read(NamedTuple):
    """What a stream begins with, and what came to its feed: to be published before the stream begins."""

    feed: Feed
    wanted: Wanted
    own: Changes
    caught: Changes | None
    shown: str


class Behind(Exception):
    """Not yet: the feed is being read, or another process has told bars closed that this one's clock does not close."""


async def read_for(connection: AsyncConnection, feed: Feed, ask: Ask, moment: Moment) -> Read:
    """Read what an opening needs; raises `Behind`."""
    stream, cursor = ask.stream, ask.cursor
    if cursor and not _within_reach(feed, cursor, moment):
        cursor = None
    # What this feed, or the one of another process, has told closed stays closed.
    told_ms = min(cursor.place.moment_ms, moment.now_ms) if cursor else 0
    certain_ms = max(moment.certain_ms, feed.place.moment_ms, told_ms)
    ended = Moment(certain_ms, certain_ms)
    own = Wanted(feed.token_id, list(feed.streams), feed.place, ended)
    wanted = [own, Wanted(feed.token_id, [stream], cursor.place, ended)] if cursor else [own]
    show = None
    if stream.seconds and ask.history and not ask.begun:
        show = Shown(stream, ask.history, cursor.place.moment_ms if cursor else certain_ms)
    answer: Answer = await changes(connection, wanted, show)
    return Read(feed, own, answer.feeds[0], answer.feeds[1] if cursor else None, answer.shown)


def _within_reach(feed: Feed, cursor: Cursor, moment: Moment) -> bool:
    if cursor.epoch != feed.epoch:
        return False
    if not cursor.stream.seconds:
        return True
    if not moment.now_ms - MAX_AWAY_MS <= cursor.place.moment_ms <= moment.now_ms + MAX_SKEW_MS:
        return False
    width = Width(cursor.stream.seconds)
    if width.floor(cursor.place.moment_ms) > width.floor(moment.now_ms):
        raise Behind
    return True


async def opened(connection: AsyncConnection, ask: Ask, read: Read) -> tuple[list[bytes], Place] | None:
    """The frames that bring a client to a place, the feed's own or short of it.

    The feed stands where the read ended. None when the cursor does not lead on.
    """
    feed, stream = read.feed, ask.stream
    if ask.cursor is None:
        shown = read.shown
        if not stream.seconds and ask.history:
            shown = await trades.page(connection, feed.token_id, Window(ask.history), until=feed.place.sequence)
        return [framed(feed.address(stream).snapshot(shown, feed.cursor(stream), ask.recovered))], feed.place
    if read.caught is None:
        return None
    begin = ask.cursor.place
    try:
        end = place_after(begin, read.caught)
    except Hole:
        return None
    frames = [framed(one.message) for one in told(feed, stream, read.caught, begin, end)]
    if not ask.begun:
        frames.insert(0, framed(feed.address(stream).snapshot(read.shown, ask.cursor, True)))
    return frames, end
