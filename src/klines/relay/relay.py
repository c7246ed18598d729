"""The relay of a process: one task that reads what doorbells announce and publishes it to the hub.

A token that changed is read at once, and then at most every `push_seconds`; all that are due are read together. Turns
follow one another, and streams open between them, so nothing is lost or told twice at any seam. A slow poll reads what
no doorbell announced. While the database is away the feeds keep their places and go on from there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from contextlib import aclosing, suppress
from typing import NamedTuple, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cursor import Place, Stream
from klines.errors import Unavailable
from klines.hub import RESTART, Hub
from klines.listener import Doorbell, Resumed, listen
from klines.patience import patience
from klines.queries.changes import Changes, Moment, Wanted, changes
from klines.queries.feeds import epoch, sequences
from klines.relay.asks import Asks
from klines.relay.engines import Engines
from klines.relay.feed import Feed, Hole, place_after, told
from klines.relay.messages import framed, now_ms
from klines.relay.opening import Ask, Behind, Opening, Read, opened, read_for
from klines.relay.pulse import Pulse
from klines.relay.schedule import HELD_SECONDS, Crowded, Schedule, refuse_odd

READ_SECONDS = 3.0
OPEN_SECONDS = 4.0
TIDY_SECONDS = 0.5
# Between two pages of a long tape: slow enough for ordinary lines, unless the tape may be cut before it is read.
BACKLOG_SECONDS = 0.02
HASTE_SECONDS = 0.005
HASTE_TRADES = 65_536
RETRY_SECONDS = (0.1, 1.0)
TOKENS_AT_ONCE = 100
MAX_BACK_MS = 5_000

logger = logging.getLogger("klines.relay")


class Pace(NamedTuple):
    """Least time between two pushes of a token, and how long a bar waits for late commits before it is told closed."""

    push_seconds: float
    grace_ms: int


class Relay:
    """Reads feeds for the hub, and opens streams on them."""

    def __init__(self, engines: Engines, hub: Hub, pace: Pace, forget: Callable[[], None]) -> None:
        self._engines = engines
        self._hub = hub
        self._pace = pace
        self._forget = forget
        self._schedule = Schedule(pace.push_seconds)
        self._asks = Asks()
        self.pulse = Pulse(hub, self._schedule, self._asks)
        self.rang: Callable[[Collection[int] | None], None] = lambda _: None  # who else hears doorbells
        self._stir = asyncio.Event()
        self._tidied_at = 0.0
        self._moment_ms = 0
        self._epoch = ""

    def told_ms(self, token_id: int) -> int | None:
        """The moment up to which the bars of a watched token that ended were told, in epoch milliseconds."""
        feed = self._schedule.feeds.get(token_id)
        return feed.place.moment_ms if feed and feed.streams else None

    async def open(self, ask: Ask) -> Opening:
        """Begin a stream; raises `Unavailable` while the database is away.

        The subscriber is held: attach it to a connection, or have it leave the hub.
        """
        if self.pulse.state == "stale":
            raise Unavailable("the database does not answer", code="database_unavailable")
        return await self._asks.answered(ask, self._hub)

    async def hear(self, url: str) -> None:
        """Take doorbells, for ever."""
        async with aclosing(listen(url)) as events:
            async for event in events:
                self.pulse.heard(event)
                if isinstance(event, Doorbell):
                    self._schedule.ring(event.tokens, asyncio.get_running_loop().time())
                    self.rang(event.tokens)
                elif isinstance(event, Resumed):
                    self._schedule.ring(None, asyncio.get_running_loop().time())
                    self.rang(None)
                self._stir.set()

    async def read(self) -> None:
        """Read and publish, for ever."""
        wait, most = RETRY_SECONDS
        while True:
            try:
                async with self._engines.turn() as connection:
                    await self._resume(connection)
                    wait = RETRY_SECONDS[0]
                    await self._turns(connection)
            except Unavailable:
                self.pulse.failed()
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads processes, hides nothing
            wait = min(2 * wait, most)

    async def _resume(self, connection: AsyncConnection) -> None:
        """Look whether this is the database that it was: if not, every stream begins anew."""
        async with patience(READ_SECONDS):
            name = await epoch(connection)
            feeds = self._schedule.feeds
            counts = await sequences(connection, feeds.keys()) if feeds else {}
        if self._epoch and name != self._epoch:
            self._forget()
        for feed in list(feeds.values()):
            if feed.epoch != name or counts[feed.token_id] < feed.place.sequence:
                self._give_up(feed, "the database is another one than before")
        self._epoch = name
        self._schedule.ring(None, 0.0)

    async def _turns(self, connection: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._tell_the_time()
            due = self._schedule.take(began := loop.time(), self._moment_ms)
            if due and loop.time() > self._tidied_at + TIDY_SECONDS:
                self._tidied_at = loop.time()
                self._schedule.keep(set(cast("Collection[Stream]", self._hub.topics())))
            for start in range(0, len(due), TOKENS_AT_ONCE):
                await self._advance(connection, due[start : start + TOKENS_AT_ONCE])
            self.pulse.succeeded(began, len(due))
            await self._rest()

    def _tell_the_time(self) -> None:
        moment_ms = now_ms() - self._pace.grace_ms
        if moment_ms < self._moment_ms - MAX_BACK_MS:
            logger.warning("the clock went back by %d s", (self._moment_ms - moment_ms) // 1000)
            self._moment_ms = moment_ms
            for feed in list(self._schedule.feeds.values()):
                if feed.place.moment_ms > moment_ms + self._pace.grace_ms:
                    self._give_up(feed, "bars were told closed before their time")
        self._moment_ms = max(self._moment_ms, moment_ms)

    def _moment(self, told_ms: int = 0) -> Moment:
        return Moment(max(self._moment_ms, told_ms), self._moment_ms + self._pace.grace_ms)

    async def _rest(self) -> None:
        """Wait until something is due or rings."""
        now = asyncio.get_running_loop().time()
        until = self._schedule.next_at(now, now_ms() - self._pace.grace_ms)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._stir.wait()
        self._stir.clear()

    async def _advance(self, connection: AsyncConnection, due: list[Feed]) -> None:
        """Read what came to these feeds, publish it, and move them on."""
        if not (due := [feed for feed in due if feed.streams]):
            return
        wanted = [Wanted(one.token_id, list(one.streams), one.place, self._moment(one.place.moment_ms)) for one in due]
        for feed in due:
            feed.held = True
        try:
            async with patience(READ_SECONDS):
                answer = await changes(connection, wanted)
            began = asyncio.get_running_loop().time()
            for feed, asked, found in zip(due, wanted, answer.feeds, strict=True):
                self._publish(feed, asked, found)
            self._schedule.told(due, began, asyncio.get_running_loop().time())
            self.pulse.told(due)
        finally:
            for feed in due:
                feed.held = feed.owed = False

    def _publish(self, feed: Feed, asked: Wanted, found: Changes) -> None:
        now = asyncio.get_running_loop().time()
        try:
            end = place_after(asked.place, found)
        except Hole as hole:
            self._give_up(feed, hole.detail)
            return
        if end.moment_ms < found.moment_ms:
            self._schedule.at(feed.token_id, now + BACKLOG_SECONDS)
        elif left := found.newest - end.sequence:
            self._schedule.at(feed.token_id, now + (HASTE_SECONDS if left > HASTE_TRADES else BACKLOG_SECONDS))
        found = feed.unrepeated(found, feed.place, end)
        begin, feed.place = feed.place, end
        for stream in asked.streams:
            for message, key in told(feed, stream, found, begin, end):
                self._hub.publish(stream, framed(message), key)

    async def answer(self, *, dear: bool) -> None:
        """Open streams that were asked for, dear ones or others, for ever; those that ask for the same share it."""
        while True:
            ask = await self._asks.next(dear=dear)
            try:
                async with patience(OPEN_SECONDS), self._engines.opening(dear=dear) as connection:
                    await self._open(connection, ask)
            except Behind:
                self._asks.postpone(ask)
                await asyncio.sleep(HELD_SECONDS)
            except Crowded as crowded:
                self._asks.refuse(crowded, ask)
            except (Unavailable, TimeoutError):
                self._asks.refuse(Unavailable("the stream cannot be opened now", code="database_busy"), ask)
            except BaseException:
                self._asks.refuse(Unavailable("the stream cannot be opened", code="stream_lost"), ask)
                raise

    async def _open(self, connection: AsyncConnection, ask: Ask) -> None:
        feed = self._schedule.feeds.get(ask.stream.token_id) or Feed.new(ask.stream, ask.symbol, self._epoch)
        refuse_odd(ask.stream, cast("Collection[Stream]", self._hub.topics()))
        if feed.held or feed.owed:
            raise Behind
        feed.held = True
        self._schedule.watch(feed)
        try:
            read = await read_for(connection, feed, ask, self._moment())
            self._settle(feed, read)
            found = await opened(connection, ask, read)
            if self._schedule.feeds.get(feed.token_id) is not feed:
                raise Behind
        finally:
            feed.held = False
            # Whatever came meanwhile, and the bars that ended, need no doorbell.
            self._schedule.at(feed.token_id, 0.0)
            self._stir.set()
        if found is None:
            self._asks.ask_anew(ask)
            return
        frames, place = found
        there = place[:2] == feed.place[:2]
        for answer in self._asks.take(ask):
            subscriber = self._hub.subscribe(ask.stream) if there else None
            answer.set_result(Opening(frames, subscriber, feed.cursor(ask.stream, place)))
        if there:
            feed.repeat()
            self._schedule.watch(feed, ask.stream)

    def _settle(self, feed: Feed, read: Read) -> None:
        """Bring the feed to where an opening has read, which tells those who watch it already; raises `Behind`."""
        if not feed.streams:
            feed.place = Place(read.own.newest, read.own.moment_ms, read.own.newest)
            return
        self._publish(feed, read.wanted, read.own)
        feed.owed = True
        if feed.place.moment_ms != read.own.moment_ms:
            raise Behind

    def _give_up(self, feed: Feed, reason: str) -> None:
        logger.warning("the streams of %s begin anew: %s", feed.symbol, reason)
        self._schedule.drop(feed)
        for stream in list(feed.streams):
            self._hub.close_topic(stream, RESTART, "cannot continue: reconnect with the cursor")
