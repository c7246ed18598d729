"""The 24-hour tickers of Binance clients: once a second, those of the tokens that changed, in one read for all.

The numbers are those of `GET /api/v3/ticker/24hr`. Doorbells say what changed; a lost one costs until the token's next
trade, or the next minute, when the 24 hours of all watched tokens move on. What does not fit into a list comes with the
next one, a second later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import islice
from time import monotonic
from typing import NamedTuple

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from klines.database import reading
from klines.queries.day import day_begins
from klines.queries.names import symbols
from klines.queries.tickers import Day, days
from klines.timestamp import to_us
from klines.web.binance.answer import average
from klines.web.binance.streams.batch import MICROSECONDS, Batch, Watchers, now
from klines.web.binance.streams.names import MINI_TICKER, OF_DAYS
from klines.web.services import utc_now

TICK_SECONDS = 1.0
# Tokens that are read because they changed; the rest follows a second later.
MAX_AT_ONCE = 500
# Less than half of what may wait for a client (`klines.hub`), so that one of each list may: some 200 full tickers.
MAX_LIST_BYTES = 80 * 1024


class MiniTickerEvent(msgspec.Struct):
    """`<symbol>@miniTicker`."""

    e: str
    E: int
    s: str
    c: str
    o: str
    h: str
    l: str  # noqa: E741 - Binance's name
    v: str
    q: str


class TickerEvent(msgspec.Struct):
    """`<symbol>@ticker`; without an order book, bid and ask are the last price with nothing to be had at it."""

    e: str
    E: int
    s: str
    p: str
    P: str
    w: str
    x: str
    c: str
    Q: str
    b: str
    B: str
    a: str
    A: str
    o: str
    h: str
    l: str  # noqa: E741 - Binance's name
    v: str
    q: str
    O: int  # noqa: E741 - Binance's name
    C: int
    F: int
    L: int
    n: int


class Place(NamedTuple):
    """Whose ticker: a token's, or None for those of all that changed."""

    kind: str
    token_id: int | None


class Tickers:
    """Who watches which ticker, and what changed; `rang` is to be told of every doorbell."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._watchers: dict[Place, Watchers] = {}
        self._symbols: dict[int, str] = {}
        # In the order in which they changed; and whether any other may have, too.
        self._changed: dict[int, None] = {}
        self._any = False
        # Symbols of changed tokens that the lists have not told yet, the longest waiting first.
        self._unlisted: dict[str, None] = {}
        self._begins: datetime | None = None
        self._came = asyncio.Event()

    def watchers(self, kind: str, token_id: int | None, symbol: str) -> Watchers:
        """The watchers of one stream, which are kept while somebody holds them; its ticker is told within a second."""
        if token_id is not None:
            self._symbols[token_id] = symbol
            self._changed[token_id] = None
        self._came.set()
        return self._watchers.setdefault(Place(kind, token_id), Watchers())

    def rang(self, token_ids: Collection[int] | None) -> None:
        """These tokens changed, or (None) any may have."""
        if not self._watchers:
            return
        if self._all_watched():
            self._any = self._any or token_ids is None
            self._changed.update(dict.fromkeys(token_ids or ()))
        watched = self._symbols.keys() if token_ids is None else self._symbols.keys() & set(token_ids)
        self._changed.update(dict.fromkeys(watched))

    async def run(self) -> None:
        """Tell what changed, once a second, for ever."""
        while True:
            await self._came.wait()
            begun = monotonic()
            self._tidy()
            if self._watchers:
                await self._tell()
            await asyncio.sleep(max(0.0, begun + TICK_SECONDS - monotonic()))

    def _all_watched(self) -> bool:
        return any(Place(kind, None) in self._watchers for kind in OF_DAYS)

    def _tidy(self) -> None:
        """Forget what nobody watches."""
        self._watchers = {place: watchers for place, watchers in self._watchers.items() if watchers.claims}
        watched = {place.token_id for place in self._watchers}
        self._symbols = {token_id: symbol for token_id, symbol in self._symbols.items() if token_id in watched}
        if not self._watchers:
            self._changed.clear()
            self._any = False
            self._came.clear()
        if not self._all_watched():
            self._unlisted.clear()

    async def _tell(self) -> None:
        moment = utc_now()
        if (begins := day_begins(moment)) != self._begins:
            self._begins = begins
            self._changed.update(dict.fromkeys(self._symbols))
        if not self._changed and not self._any and not self._unlisted:
            return
        chosen, self._changed = self._next()
        everything, self._any = self._any, False
        try:
            rows, ids = await self._read(chosen, moment, everything)
        except BaseException:
            self._changed, self._any = dict.fromkeys(chosen) | self._changed, everything or self._any
            raise
        told = Told(rows, to_us(begins), to_us(moment))
        if self._all_watched():
            self._unlisted = told.choose(self._unlisted)
        for place, watchers in tuple(self._watchers.items()):
            if place.token_id is None and told.listed:
                watchers.give(told.batch(place.kind, None), place)
            elif place.token_id in ids:
                watchers.give(told.batch(place.kind, self._symbols[place.token_id]), place)

    def _next(self) -> tuple[list[int], dict[int, None]]:
        changed = list(self._changed)
        return changed[:MAX_AT_ONCE], dict.fromkeys(changed[MAX_AT_ONCE:])

    async def _read(self, chosen: Sequence[int], moment: datetime, everything: bool) -> tuple[list[Day], set[int]]:
        """The days of these tokens, of those that wait for a list, and if need be of those that were traded last."""
        waiting = tuple(islice(self._unlisted, MAX_AT_ONCE))
        async with reading(self._engine) as connection:
            named = await symbols(connection, chosen)
            rows = await days(connection, None, moment) if everything else []
            wanted = dict.fromkeys((*waiting, *named.values())).keys() - {row.symbol for row in rows}
            rows += await days(connection, list(wanted), moment)
        return rows, set(named)


class Told:
    """The tickers of one read, as they are told."""

    def __init__(self, rows: Sequence[Day], begin_us: int, end_us: int) -> None:
        self._rows = {row.symbol: row for row in rows}
        self.listed: list[Day] = []
        self._begin_us, self._end_us = begin_us, end_us

    def choose(self, waiting: Iterable[str]) -> dict[str, None]:
        """Choose what the lists have, those that wait first and as many as fit; the symbols of the rest."""
        queue = dict.fromkeys((*waiting, *self._rows))
        size = 0
        for symbol in tuple(queue):
            # More of those that wait were read than fit: one without a row is no token of this database.
            if row := self._rows.get(symbol):
                size += len(msgspec.json.encode(self._full(row, MICROSECONDS))) + 1
                if size > MAX_LIST_BYTES:
                    break
                self.listed.append(row)
            del queue[symbol]
        return queue

    def batch(self, kind: str, symbol: str | None) -> Batch:
        """The ticker of a token, or (None) a list of all."""
        event = self._mini if kind == MINI_TICKER else self._full

        def encode(per_ms: int) -> list[bytes]:
            if symbol is not None:
                return [msgspec.json.encode(event(self._rows[symbol], per_ms))]
            return [msgspec.json.encode([event(row, per_ms) for row in self.listed])]

        return Batch(encode)

    def _mini(self, row: Day, per_ms: int) -> MiniTickerEvent:
        last = row.price or "0"
        prices = (last, row.open or last, row.high or last, row.low or last)
        return MiniTickerEvent(
            "24hrMiniTicker", now(per_ms), row.symbol, *prices, row.volume or "0", row.quote_volume or "0"
        )

    def _full(self, row: Day, per_ms: int) -> TickerEvent:
        last = row.price or "0"
        traded = row.first_trade_id is not None and row.last_trade_id is not None
        return TickerEvent(
            e="24hrTicker",
            E=now(per_ms),
            s=row.symbol,
            p=row.change or "0",
            P=row.change_percent or "0",
            w=average(Decimal(row.quote_volume or 0), Decimal(row.volume or 0), row.price),
            x=row.previous or row.open or "0",
            c=last,
            Q=row.amount or "0",
            b=last,
            B="0",
            a=last,
            A="0",
            o=row.open or last,
            h=row.high or last,
            l=row.low or last,
            v=row.volume or "0",
            q=row.quote_volume or "0",
            O=self._begin_us * per_ms // 1000,
            C=self._end_us * per_ms // 1000,
            F=row.first_trade_id if traded and row.first_trade_id is not None else -1,
            L=row.last_trade_id if traded and row.last_trade_id is not None else -1,
            n=row.trades or 0,
        )
