"""One native stream that Binance clients watch here: read once, told to all of them.

It is a subscriber of the hub like any connection, and resumes like any client: when the hub closes it, it opens again
with the last cursor, so whoever watches misses nothing and is told nothing twice. Where the cursor does not lead on,
its watchers are closed.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Protocol

from klines.cursor import Cursor, Stream, parse_cursor
from klines.errors import Unavailable
from klines.hub import Hub, Subscriber
from klines.interval import Width
from klines.relay.opening import Ask
from klines.relay.relay import Relay
from klines.web.binance.streams import events
from klines.web.binance.streams.batch import Current, Watchers, payload_of
from klines.web.binance.streams.dense import Dense, Told
from klines.web.binance.streams.names import AGG_TRADE, BOOK_TICKER, KLINE, TRADE
from klines.web.binance.streams.native import Message, decode

# Bars ahead of the clock, by default at most a minute, may stand before the one that is open.
HISTORY = 10
AHEAD_SECONDS = 60


Stir = Callable[["Source"], None]


class Lost(Unavailable):
    """The stream cannot be continued where it was left."""


class Teller(Protocol):
    """Turns native messages into batches for the watchers, which it finds by the kind of their stream."""

    def begin(self, message: Message, cursor: Cursor) -> None:
        """Begin with a snapshot."""

    def take(self, message: Message, cursor: Cursor) -> None:
        """Tell what a message says."""

    def present(self, kind: str) -> Current | None:
        """What is shown to whoever joins."""


class Source:
    """One native stream; `claims` counts those who hold it. It is also the sink of its subscriber."""

    def __init__(
        self, stream: Stream, symbol: str, relay: Relay, hub: Hub, stir: Stir, lost: Callable[[Source, int], None]
    ) -> None:
        self.stream = stream
        self.symbol = symbol
        self.claims = 0
        self.watchers: defaultdict[str, Watchers] = defaultdict(Watchers)
        self.teller: Bars | Trades = (Bars if stream.seconds else Trades)(self)
        self._relay, self._hub, self._stir, self._lost = relay, hub, stir, lost
        self._subscriber: Subscriber | None = None
        self._cursor: Cursor | None = None
        self._opening = asyncio.Lock()
        self.left = False

    @property
    def live(self) -> bool:
        """Whether it is told what happens."""
        return self._subscriber is not None

    async def ready(self) -> None:
        """Open the stream, or continue it, unless it is live; raises `Unavailable`, `Lost` if it has to begin anew."""
        async with self._opening:
            if self.left:
                raise Lost("the stream begins anew", code="stream_lost")
            if self._subscriber is None:
                await self._open()

    def leave(self) -> None:
        """Tell nothing more, for good."""
        self.left = True
        if self._subscriber is not None:
            self._hub.leave(self._subscriber)
            self._subscriber = None

    def write(self, frame: bytes) -> None:
        """A message of the stream, framed."""
        message = decode(payload_of(frame))
        cursor = parse_cursor(message.cursor, self.stream) if message.cursor else self._cursor
        if message.recovered is False:
            raise Lost("the stream cannot be continued", code="stream_lost")
        if cursor is None:
            return
        if message.type != "snapshot":
            self.teller.take(message, cursor)
        elif not message.recovered:
            self.teller.begin(message, cursor)
        self._cursor = cursor
        if self.stream.seconds:
            self._stir(self)

    def close(self, code: int, reason: str) -> None:
        """The hub has closed its subscriber."""
        self._subscriber = None
        self._lost(self, code)

    def unsent(self) -> int:
        """Nothing ever waits here."""
        return 0

    async def _open(self) -> None:
        ahead = AHEAD_SECONDS // self.stream.seconds if self.stream.seconds else 0
        ask = Ask(self.stream, self.symbol, HISTORY + ahead, self._cursor)
        while True:
            opening = await self._relay.open(ask)
            try:
                for frame in opening.frames:
                    self.write(frame)
            except BaseException:
                if opening.subscriber is not None:
                    self._hub.leave(opening.subscriber)
                raise
            if opening.subscriber is not None:
                break
            ask = ask._replace(cursor=opening.cursor, begun=True)
        self._subscriber = opening.subscriber
        self._subscriber.attach(self)


class Bars:
    """Tells the bars of a stream without gaps."""

    def __init__(self, source: Source) -> None:
        self._width = Width(source.stream.seconds)
        self._symbol = source.symbol
        self._watchers = source.watchers[KLINE]
        self._dense = Dense(self._width)

    def begin(self, message: Message, cursor: Cursor) -> None:
        """Begin with the latest bars."""
        self._dense.begin(message.klines, cursor.place.moment_ms)

    def take(self, message: Message, cursor: Cursor) -> None:
        """Tell a bar, and those that ended before it."""
        self._tell(self._dense.take(message.kline, cursor.place.moment_ms))

    def tick(self, moment_ms: int) -> None:
        """All bars that ended by this moment were told: close the buckets without trades, and open the present one."""
        self._tell(self._dense.take(None, moment_ms))
        if (bar := self._dense.unsaid()) is not None:
            self._tell([Told(bar, closed=False)])

    def settled(self, now_ms: int) -> bool:
        """Whether there is nothing to tell before another message comes or the bucket of this time is over."""
        return self._dense.settled(now_ms)

    def present(self, kind: str) -> Current | None:
        """The open bar."""
        bar = self._dense.present()
        return self._current(Told(bar, closed=False)) if bar else None

    def _tell(self, told: list[Told]) -> None:
        if closed := [one for one in told if one.closed]:
            self._watchers.give(events.klines(self._symbol, self._width, closed))
        for one in told[len(closed) :]:
            self._watchers.give(*self._current(one))

    def _current(self, told: Told) -> Current:
        key = (self._symbol, self._width, told.bar.open_time)
        return Current(events.klines(self._symbol, self._width, [told]), key)


class Trades:
    """Tells the trades of a stream, and the last price."""

    def __init__(self, source: Source) -> None:
        self._symbol = source.symbol
        self._watchers = source.watchers
        self._price: str | None = None
        self._update = 0

    def begin(self, message: Message, cursor: Cursor) -> None:
        """Begin behind the latest trades."""
        self._update = cursor.place.sequence
        if message.trades:
            self._price = message.trades[-1].price

    def take(self, message: Message, cursor: Cursor) -> None:
        """Tell trades."""
        if not message.trades:
            return
        for kind, encode in ((TRADE, events.trades), (AGG_TRADE, events.agg_trades)):
            if self._watchers[kind]:
                self._watchers[kind].give(encode(self._symbol, message.trades))
        price, self._update = message.trades[-1].price, cursor.place.sequence
        if price != self._price:
            self._price = price
            if (current := self.present(BOOK_TICKER)) is not None:
                self._watchers[BOOK_TICKER].give(*current)

    def present(self, kind: str) -> Current | None:
        """The last price; trades have no present."""
        if kind != BOOK_TICKER or self._price is None:
            return None
        return Current(events.book_ticker(self._symbol, self._price, self._update), (BOOK_TICKER, self._symbol))
