"""A watched token: how far its streams have been told, and what a read of its feed has to tell them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import NamedTuple

from klines.cursor import Cursor, Stream
from klines.errors import KlinesError
from klines.queries.changes import PAGE_TRADES, ROW_TRADES, Changed, Changes, Taped, Wanted
from klines.relay.messages import Address
from klines.timestamp import to_datetime


def moment_of(moment_ms: int) -> datetime:
    """A moment in epoch milliseconds, as the database takes it."""
    return to_datetime(moment_ms * 1000)


class Hole(KlinesError):
    """Trades between two places of a feed are no longer on the tape."""


class Told(NamedTuple):
    """A message; with a key it is an open bar, named by its open time, of which only the newest state matters."""

    message: str
    key: int | None = None


class Place(NamedTuple):
    """A place in a token's feed, as a cursor names it: trades, the moment up to which bars are closed, and `ahead`."""

    sequence: int
    moment_ms: int
    ahead: int = 0

    @property
    def moment(self) -> datetime:
        """The moment, as the database takes it."""
        return moment_of(self.moment_ms)

    def cursor(self, epoch: str, stream: Stream) -> Cursor:
        """The place as it is handed out."""
        return Cursor(epoch, stream, self.sequence, self.moment_ms, self.ahead)

    def wanted(self, streams: Sequence[Stream]) -> Wanted:
        """What to read to get on from here."""
        return Wanted(streams, self.sequence, self.moment, self.ahead)


class Feed:
    """A token that somebody watches: its address on the wire, its streams, and the place they have all been told."""

    def __init__(self, token_id: int, symbol: str, epoch: str, place: Place) -> None:
        self.token_id = token_id
        self.symbol = symbol
        self.epoch = epoch
        self.place = place
        self.streams: dict[Stream, Address] = {}
        self.pushed = 0.0

    def address(self, stream: Stream) -> Address:
        """The beginning of the messages of one of its streams, watched or not."""
        return self.streams.get(stream) or Address(stream, self.symbol)

    def cursor(self, stream: Stream) -> Cursor:
        """Where a stream stands."""
        return self.place.cursor(self.epoch, stream)


def end_of(taped: Sequence[Taped], after: int) -> int:
    """The end of the tape that was read after a place; raises `Hole` if something is missing in between."""
    for row in taped:
        if row.sequence - row.trades != after:
            raise Hole(f"trades {after + 1} to {row.sequence - row.trades} of a feed are gone")
        after = row.sequence
    return after


def may_have_more(wanted: Wanted, end: int) -> bool:
    """Whether the page may have ended before the tape did."""
    return end < wanted.until and end > wanted.after + PAGE_TRADES - ROW_TRADES


def told(feed: Feed, stream: Stream, found: Changes, begin: Place, end: Place) -> list[Told]:
    """What a read between two places has to tell one stream: the trades in one message, or a message per bar."""
    address = feed.address(stream)
    if stream.seconds:
        bars = [bar for bar in found.changed if bar.stream == stream]
        return list(_bars(address, bars, begin, end, feed.epoch))
    if not found.taped:
        return []
    trades = ",".join(row.json for row in found.taped)
    return [Told(address.trades(trades, end.cursor(feed.epoch, stream)))]


def _bars(address: Address, bars: Sequence[Changed], begin: Place, end: Place, epoch: str) -> Iterator[Told]:
    """Ascending by open time: bars that had ended by the moment of `begin` are revised, then some close, then the open.

    Each cursor continues right after its message; at worst the state of a bar is told a second time.
    """
    for number, bar in enumerate(bars, 1):
        width_ms = bar.stream.seconds * 1000
        end_ms = bar.open_ms + width_ms
        revised, closed = end_ms <= begin.moment_ms, end_ms <= end.moment_ms
        if number == len(bars):
            place = end
        elif not revised:
            # Whatever ended with this bar or before it is told as of the end of the page, the rest is not.
            place = Place(begin.sequence, end_ms if closed else end.moment_ms, end.sequence)
        elif bars[number].open_ms + width_ms > begin.moment_ms:
            place = Place(begin.sequence, begin.moment_ms, end.sequence)
        else:
            place = begin
        message = address.bar("revision" if revised else "kline", bar.json, place.cursor(epoch, bar.stream))
        yield Told(message, None if closed else bar.open_ms)
