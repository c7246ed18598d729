"""All streams that Binance clients of this process watch, and their connections: one object per process.

Each native stream is watched once, however many clients there are. Each connection is one subscriber of a hub of its
own kind, so the bounds on what waits for it, and what happens past them, are those of every connection.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from klines.background import running
from klines.cursor import Stream
from klines.errors import Unavailable, UnknownToken
from klines.hub import FAILED, Hub
from klines.interval import Width
from klines.relay.messages import now_ms
from klines.relay.relay import Relay
from klines.web.binance.streams.batch import Current, Watcher, Watchers
from klines.web.binance.streams.names import OF_DAYS, Name
from klines.web.binance.streams.source import Bars, Lost, Source
from klines.web.binance.streams.tickers import Tickers

# How late a bucket without trades may be told closed, after the moment at which it could be.
TICK_SECONDS = 0.05
TOLD_AT_ONCE = 64
SWEEP_SECONDS = 0.5
RETRY_SECONDS = 0.5
PAUSE_SECONDS = 0.02
REOPENED_AT_ONCE = 16
# Of all connections, in the order of asking: none asks for more than a few at once (`session.OPENED_AT_ONCE`).
CLAIMED_AT_ONCE = 16

logger = logging.getLogger("klines.web")
Find = Callable[[str], Awaitable[tuple[str, int]]]


class Claim(NamedTuple):
    """A stream that somebody holds: its watchers, what it shows to whoever joins, and where it comes from."""

    kind: str
    watchers: Watchers
    source: Source | None

    def present(self) -> Current | None:
        """What is shown to whoever joins."""
        return self.source.teller.present(self.kind) if self.source else None


class Market:
    """`hub` has the connections of this dialect; `find` gives canonical symbol and id of a token."""

    def __init__(self, relay: Relay, native: Hub, tickers: Tickers, find: Find) -> None:
        self.hub = Hub()
        self._relay = relay
        self._native = native
        self._tickers = tickers
        self._find = find
        self._sources: dict[Stream, Source] = {}
        self._cut_off: dict[Source, None] = {}
        # By width, and those of them that have something to tell before another message comes.
        self._widths: dict[int, dict[Source, None]] = {}
        self._stirred: dict[Source, None] = {}
        self._begun: dict[int, int] = {}
        self._places = asyncio.Semaphore(CLAIMED_AT_ONCE)
        self._work = asyncio.Event()
        self._closings = asyncio.Event()

    async def claim(self, name: Name) -> Claim:
        """Hold a stream until `release`; raises `UnknownToken`, `Unavailable`. Waits its turn among all that claim."""
        async with self._places:
            return await self._claim(name)

    async def _claim(self, name: Name) -> Claim:
        symbol, token_id = await self._token(name.symbol) if name.symbol else ("", None)
        if name.kind in OF_DAYS:
            watchers = self._tickers.watchers(name.kind, token_id, symbol)
            watchers.claims += 1
            return Claim(name.kind, watchers, None)
        stream = Stream(token_id or 0, name.seconds)
        source = self._sources.get(stream)
        if source is None:
            source = Source(stream, symbol, self._relay, self._native, self._stir, self._closed)
            self._sources[stream] = source
            self._widths.setdefault(stream.seconds, {})[source] = None
        source.claims += 1
        claim = Claim(name.kind, source.watchers[name.kind], source)
        try:
            await self._ready(source)
        except BaseException:
            self.release(claim)
            raise
        self._work.set()
        return claim

    async def _token(self, symbol: str) -> tuple[str, int]:
        try:
            return await self._find(symbol)
        except UnknownToken:
            # Clients write names in lower case, in any alphabet; our symbols keep the case of all but ASCII letters.
            upper = symbol.upper()
            if upper == symbol or len(upper) != len(symbol):
                raise
            return await self._find(upper)

    def release(self, claim: Claim) -> None:
        """Hold it no longer; the last one ends it."""
        source = claim.source
        if source is None:
            claim.watchers.claims -= 1
            return
        source.claims -= 1
        if not source.claims:
            self._forget(source)

    def _forget(self, source: Source) -> None:
        source.leave()
        for those in (self._cut_off, self._stirred, self._widths.get(source.stream.seconds, {})):
            those.pop(source, None)
        if self._sources.get(source.stream) is source:
            del self._sources[source.stream]

    async def _ready(self, source: Source) -> None:
        try:
            await source.ready()
        except Unavailable as error:
            if isinstance(error, Lost):
                self._give_up(source, error.detail)
            raise
        except Exception:
            self._give_up(source, "a message could not be told")
            raise

    def _closed(self, source: Source, code: int) -> None:
        """The hub has closed a source."""
        if code == FAILED:
            self._give_up(source, "a message could not be told")
        else:
            self._cut_off[source] = None
            self._closings.set()

    def _give_up(self, source: Source, reason: str) -> None:
        logger.warning("the streams of %s begin anew for Binance clients: %s", source.symbol, reason)
        self._forget(source)
        everyone: list[Watcher] = [one for watchers in source.watchers.values() for one in watchers]
        for watcher in dict.fromkeys(everyone):
            watcher.end("a stream cannot be continued: connect again")

    def _stir(self, source: Source) -> None:
        """A message came: a bucket may have begun in which there is no trade."""
        self._stirred[source] = None

    async def tick(self) -> None:
        """Tell where buckets without trades begin and end, for ever."""
        while True:
            if not self._sources:
                self._work.clear()
                await self._work.wait()
            now = now_ms()
            self._stir_where_buckets_begin(now)
            for number, source in enumerate(tuple(self._stirred)):
                if number % TOLD_AT_ONCE == TOLD_AT_ONCE - 1:
                    # Clients read meanwhile, and others are told.
                    await asyncio.sleep(0)
                self._tell(source, now)
            await asyncio.sleep(TICK_SECONDS)

    def _stir_where_buckets_begin(self, now: int) -> None:
        self._widths = {seconds: sources for seconds, sources in self._widths.items() if sources}
        begun = {seconds: Width(seconds).floor(now) for seconds in self._widths if seconds}
        for seconds, opened in begun.items():
            if self._begun.get(seconds) != opened:
                self._stirred.update(self._widths[seconds])
        self._begun = begun

    def _tell(self, source: Source, now: int) -> None:
        if source.left or not isinstance(source.teller, Bars):
            self._stirred.pop(source, None)
            return
        moment_ms = self._relay.told_ms(source.stream.token_id)
        if source.live and moment_ms is not None:
            source.teller.tick(moment_ms)
            if source.teller.settled(now):
                self._stirred.pop(source, None)

    async def reopen(self) -> None:
        """Open again what the hub has closed, for ever."""
        while True:
            await self._closings.wait()
            await asyncio.gather(*map(self._continue, tuple(self._cut_off)[:REOPENED_AT_ONCE]))
            if not self._cut_off:
                self._closings.clear()
            await asyncio.sleep(PAUSE_SECONDS)

    async def _continue(self, source: Source) -> None:
        claim = Claim("", Watchers(), source)
        source.claims += 1
        try:
            await self._ready(source)
        except Unavailable:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            self._cut_off.pop(source, None)
        finally:
            self.release(claim)

    async def sweep(self) -> None:
        """Close connections that are stuck, for ever."""
        while True:
            self.hub.sweep()
            await asyncio.sleep(SWEEP_SECONDS)


@asynccontextmanager
async def open_market(relay: Relay, native: Hub, tickers: Tickers, find: Find) -> AsyncIterator[Market]:
    """A market at work while the context is open."""
    market = Market(relay, native, tickers, find)
    relay.rang = tickers.rang
    async with AsyncExitStack() as stack:
        for name, work in (
            ("clock", market.tick),
            ("reopener", market.reopen),
            ("sweep", market.sweep),
            ("tickers", tickers.run),
        ):
            await stack.enter_async_context(running(f"{name} of the Binance streams", work, RETRY_SECONDS))
        yield market
