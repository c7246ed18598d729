"""The relay of a process: one task that reads what doorbells announce and publishes it to the hub.

A token that changed is read at once, and then at most every `push_seconds`; all that are due are read together. Turns
follow one another, and streams open between them, so nothing is lost or told twice at any seam. A slow poll reads what
no doorbell announced. While the database is away the feeds keep their places and go on from there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from functools import partial
from typing import NamedTuple, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from klines.background import running
from klines.cursor import Place, Stream
from klines.errors import Unavailable
from klines.hub import Hub
from klines.listener import Doorbell, Resumed, listen
from klines.queries.changes import Changes, Wanted, changes
from klines.queries.feeds import epoch, sequences
from klines.relay.asks import Asks
from klines.relay.engines import Engines
from klines.relay.feed import Feed, Hole, place_after, told
from klines.relay.messages import Feed as State
from klines.relay.messages import framed, heartbeat, now_ms
from klines.relay.opening import Ask, Behind, Opening, opened, read_for
from klines.relay.schedule import Schedule

READ_SECONDS = 3.0
OPEN_SECONDS = 2.0
PULSE_SECONDS = 0.5
# Between two pages of a long tape: slow enough for ordinary lines, unless the tape may be cut before it is read.
BACKLOG_SECONDS = 0.02
HASTE_SECONDS = 0.005
HASTE_TRADES = 65_536
RETRY_SECONDS = (0.1, 1.0)
TOKENS_AT_ONCE = 100
ASKS_AT_ONCE = 16
RESTART = 1012

logger = logging.getLogger("klines.relay")


class Pace(NamedTuple):
    """Least time between two pushes of a token, and how long a bar waits for late commits before it is told closed."""

    push_seconds: float
    grace_ms: int


@asynccontextmanager
async def open_relay(url: str, engines: Engines, hub: Hub, pace: Pace) -> AsyncIterator[Relay]:
    """The relay between the database at `url`, read through `engines`, and the hub."""
    relay = Relay(engines, hub, pace)
    async with AsyncExitStack() as stack:
        for name, work in (("reader", relay.read), ("listener", partial(relay.hear, url)), ("pulse", relay.pulse)):
            await stack.enter_async_context(running(f"{name} of the streams", work, RETRY_SECONDS[1]))
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                await relay.ready.wait()
        yield relay


class Relay:
    """Reads feeds for the hub, and opens streams on them."""

    def __init__(self, engines: Engines, hub: Hub, pace: Pace) -> None:
        self.state: State = "stale"
        self.ready = asyncio.Event()
        self._engines = engines
        self._hub = hub
        self._pace = pace
        self._schedule = Schedule(pace.push_seconds)
        self._asks = Asks()
        self._stir = asyncio.Event()
        self._read_at = 0.0
        self._tidied_at = 0.0
        self._moment_ms = 0
        self._epoch = ""

    async def open(self, ask: Ask) -> Opening:
        """Begin a stream; raises `Unavailable` while the database is away.

        The subscriber is held: attach it to a connection, or have it leave the hub.
        """
        if self.state == "stale":
            raise Unavailable("the database does not answer", code="database_unavailable")
        self._stir.set()
        return await self._asks.answered(ask, self._hub)

    async def hear(self, url: str) -> None:
        """Take doorbells, for ever."""
        async with aclosing(listen(url)) as events:
            async for event in events:
                if isinstance(event, Doorbell):
                    self._schedule.ring(event.tokens, asyncio.get_running_loop().time())
                elif isinstance(event, Resumed):
                    self._schedule.ring(None, asyncio.get_running_loop().time())
                self._stir.set()

    async def pulse(self) -> None:
        """Keep the hub's connections alive and honest, for ever."""
        while True:
            if asyncio.get_running_loop().time() - self._read_at > READ_SECONDS:
                self._be("stale")
            self._hub.sweep()
            self._hub.beat(self._heartbeat)
            await asyncio.sleep(PULSE_SECONDS)

    async def read(self) -> None:
        """Read and publish, for ever."""
        least, most = RETRY_SECONDS
        wait = least
        while True:
            try:
                async with self._engines.connected() as (turns, openings):
                    await self._resume(turns)
                    wait = least
                    await self._turns(turns, openings)
            except Unavailable:
                self._be("stale")
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads processes, hides nothing
            wait = min(2 * wait, most)

    async def _resume(self, connection: AsyncConnection) -> None:
        """Look whether this is the database that it was: if not, every stream begins anew."""
        async with asyncio.timeout(READ_SECONDS):
            name = await epoch(connection)
            feeds = self._schedule.feeds
            counts = await sequences(connection, feeds.keys()) if feeds else {}
        for feed in list(feeds.values()):
            if feed.epoch != name or counts[feed.token_id] < feed.place.sequence:
                self._give_up(feed, "the database is another one than before")
        self._epoch = name
        self._schedule.ring(None, 0.0)

    async def _turns(self, turns: AsyncConnection, openings: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._moment_ms = max(self._moment_ms, now_ms() - self._pace.grace_ms)
            due = self._schedule.take(loop.time(), self._moment_ms)
            if due and loop.time() > self._tidied_at + PULSE_SECONDS:
                self._tidied_at = loop.time()
                self._schedule.keep(set(cast("Collection[Stream]", self._hub.topics())))
            for start in range(0, len(due), TOKENS_AT_ONCE):
                await self._advance(turns, due[start : start + TOKENS_AT_ONCE])
            self._read_at = loop.time()
            self._be("live")
            await self._answer(openings)
            await self._rest()

    async def _rest(self) -> None:
        """Wait until something is due, rings or is asked for."""
        now = asyncio.get_running_loop().time()
        until = self._schedule.next_at(now, now_ms() - self._pace.grace_ms)
        if self._asks:
            until = min(until, now + BACKLOG_SECONDS)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await self._stir.wait()
        self._stir.clear()

    async def _advance(self, connection: AsyncConnection, due: list[Feed]) -> None:
        """Read what came to these feeds, publish it, and move them on."""
        due = [feed for feed in due if feed.streams]
        if not due:
            return
        wanted = [Wanted(feed.token_id, list(feed.streams), feed.place) for feed in due]
        now = asyncio.get_running_loop().time()
        async with asyncio.timeout(READ_SECONDS):
            answer = await changes(connection, wanted, self._moment_ms)
        for feed, asked, found in zip(due, wanted, answer.feeds, strict=True):
            self._publish(feed, asked, found, now)

    def _publish(self, feed: Feed, asked: Wanted, found: Changes, now: float) -> None:
        try:
            end = place_after(asked.place, found, self._moment_ms)
        except Hole as hole:
            self._give_up(feed, hole.detail)
            return
        if found.taped:
            feed.pushed = now
        if left := found.newest - end.sequence:
            self._schedule.at(feed.token_id, now + (HASTE_SECONDS if left > HASTE_TRADES else BACKLOG_SECONDS))
        found = feed.unrepeated(found, feed.place, end)
        begin, feed.place = feed.place, end
        for stream in asked.streams:
            for message, key in told(feed, stream, found, begin, end):
                self._hub.publish(stream, framed(message), key)

    async def _answer(self, connection: AsyncConnection) -> None:
        """Open streams that were asked for, a few at a time; those that ask the same share one answer."""
        for ask in self._asks.next(ASKS_AT_ONCE):
            try:
                async with asyncio.timeout(OPEN_SECONDS):
                    await self._open(connection, ask)
            except Behind:
                self._asks.postpone(ask)
            except Exception:
                self._asks.refuse(Unavailable("the stream cannot be opened now", code="database_busy"), ask)
                raise

    async def _open(self, connection: AsyncConnection, ask: Ask) -> None:
        now = asyncio.get_running_loop().time()
        feed = self._schedule.feeds.get(ask.stream.token_id)
        read = await read_for(connection, feed or Feed.new(ask.stream, ask.symbol, self._epoch), ask, self._moment_ms)
        feed = read.feed
        if feed.streams:
            self._publish(feed, read.wanted, read.own, now)
            if feed.token_id not in self._schedule.feeds:
                return
        else:
            feed.place = Place(read.own.newest, self._moment_ms, read.own.newest)
        found = await opened(connection, ask, read)
        if found is None:
            self._asks.ask_anew(ask)
            return
        frames, place = found
        there = place.sequence == feed.place.sequence
        for answer in self._asks.take(ask):
            subscriber = self._hub.subscribe(ask.stream) if there else None
            answer.set_result(Opening(frames, subscriber, feed.cursor(ask.stream, place)))
        if there:
            feed.repeat()
            self._schedule.watch(feed, ask.stream)

    def _give_up(self, feed: Feed, reason: str) -> None:
        logger.warning("the streams of %s begin anew: %s", feed.symbol, reason)
        self._schedule.drop(feed)
        for stream in list(feed.streams):
            self._hub.close_topic(stream, RESTART, "cannot continue: reconnect with the cursor")

    def _heartbeat(self, topic: object) -> bytes:
        stream = cast(Stream, topic)
        feed = self._schedule.feeds.get(stream.token_id)
        return framed(heartbeat(self.state, feed.cursor(stream) if feed else None))

    def _be(self, state: State) -> None:
        if state == "stale":
            self._asks.refuse(Unavailable("the database does not answer", code="database_unavailable"))
        if state == self.state:
            return
        self.state = state
        logger.log(logging.INFO if state == "live" else logging.WARNING, "the streams are %s", state)
        self._hub.beat(self._heartbeat, everyone=True)
        if state == "live":
            self.ready.set()
