"""A watched token: how far its streams have been told, and what a read of its feed has to tell them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from klines.cursor import Cursor, Place, Stream
from klines.errors import KlinesError
from klines.queries.changes import Changed, Changes
from klines.queries.turn import PAGE_BARS
from klines.relay.messages import Address

MAX_TOLD = 2_000
# Behind every trade there will be.
BEYOND = 2**62


class Hole(KlinesError):
    """Trades between two places of a feed are no longer on the tape."""


class Told(NamedTuple):
    """A message; with a key it is an open bar, named by its open time, of which only the newest state matters."""

    message: str
    key: int | None = None


class Feed:
    """A token that somebody watches: its streams, and the place that all of them have been told."""

    def __init__(self, token_id: int, symbol: str, epoch: str, place: Place) -> None:
        self.token_id = token_id
        self.symbol = symbol
        self.epoch = epoch
        self.place = place
        self.streams: dict[Stream, Address] = {}
        # When it may be pushed again.
        self.allowed = 0.0
        # When its doorbell rang for what was not told yet; 0: nothing is owed.
        self.rung = 0.0
        # A read of it is under way: nobody else may move it. And after one that opened a stream, the turn is a turn's.
        self.held = False
        self.owed = False
        self._told: dict[tuple[Stream, int], str] = {}

    @classmethod
    def new(cls, stream: Stream, symbol: str, epoch: str) -> Feed:
        """The feed of a token that nobody watched: it begins where its first read ends."""
        return cls(stream.token_id, symbol, epoch, Place(BEYOND))

    def address(self, stream: Stream) -> Address:
        """The beginning of the messages of one of its streams, watched or not."""
        return self.streams.get(stream) or Address(stream, self.symbol)

    def unrepeated(self, found: Changes, begin: Place, end: Place) -> Changes:
        """The changes without the bars that an earlier page of the same tape has told just as they are.

        Pages of a long tape stop short of it, and bars do not: one that several pages touch is told whole by the first.
        """
        if end.sequence == begin.sequence or (end.sequence == found.newest and not self._told):
            return found
        fresh = [bar for bar in found.changed if self._told.get(bar[:2]) != bar.json]
        self._told.update((bar[:2], bar.json) for bar in fresh)
        if end.sequence == found.newest or len(self._told) > MAX_TOLD:
            self.repeat()
        return found._replace(changed=fresh)

    def repeat(self) -> None:
        """Somebody joins who was not told: whatever later pages touch is told again."""
        self._told.clear()

    def cursor(self, stream: Stream, place: Place | None = None) -> Cursor:
        """The cursor of a place of this feed, or of its own."""
        return Cursor(self.epoch, stream, place or self.place)


def place_after(begin: Place, found: Changes) -> Place:
    """Where a read that began at a place ended; raises `Hole` if something is missing in between."""
    end = begin.sequence
    for row in found.taped:
        if row.sequence - row.trades != end:
            raise Hole(f"trades {end + 1} to {row.sequence - row.trades} of a feed are gone")
        end = row.sequence
    if found.newest < max(end, begin.ahead) or (found.newest > end and not found.taped):
        raise Hole(f"a feed of {found.newest} trades cannot be read from {end} on")
    cut_ms = _cut(begin, found)
    # First the bars that ended, a page of them at a time; the tape waits.
    return Place(end, cut_ms, end) if cut_ms == found.moment_ms else Place(begin.sequence, cut_ms, begin.ahead)


def _cut(begin: Place, found: Changes) -> int:
    """The moment up to which the bars that ended are all in this page."""
    ended: dict[Stream, list[int]] = {}
    for bar in found.changed:
        if begin.moment_ms < bar.end_ms <= found.moment_ms:
            ended.setdefault(bar.stream, []).append(bar.end_ms)
    return min([found.moment_ms, *(ends[PAGE_BARS - 1] for ends in ended.values() if len(ends) >= PAGE_BARS)])


def told(feed: Feed, stream: Stream, found: Changes, begin: Place, end: Place) -> list[Told]:
    """What a read between two places has to tell one stream: the trades in one message, or a message per bar."""
    read = end.sequence > begin.sequence
    if stream.seconds:
        bars = [bar for bar in found.changed if bar.stream == stream and (read or _closes(bar, begin, end))]
        return list(_bars(feed, bars, begin, end))
    if not read:
        return []
    trades = ",".join(row.json for row in found.taped)
    return [Told(feed.address(stream).trades(trades, feed.cursor(stream, end)))]


def _closes(bar: Changed, begin: Place, end: Place) -> bool:
    return begin.moment_ms < bar.end_ms <= end.moment_ms


def _bars(feed: Feed, bars: Sequence[Changed], begin: Place, end: Place) -> Iterator[Told]:
    """Ascending by open time: bars that had ended by the moment of `begin` are revised, then some close, then the open.

    Each cursor continues right after its message; at worst the state of a bar is told a second time.
    """
    for number, bar in enumerate(bars, 1):
        revised, closed = bar.end_ms <= begin.moment_ms, bar.end_ms <= end.moment_ms
        if number == len(bars):
            place = end
        elif not revised:
            # Whatever ended with this bar or before it is told up to the end, the rest as before.
            place = Place(begin.sequence, bar.end_ms if closed else end.moment_ms, end.ahead)
        elif bars[number].end_ms > begin.moment_ms:
            place = Place(begin.sequence, begin.moment_ms, end.ahead)
        else:
            place = begin
        cursor = feed.cursor(bar.stream, place)
        message = feed.address(bar.stream).bar("revision" if revised else "kline", bar.json, cursor)
        yield Told(message, None if closed else bar.open_ms)
