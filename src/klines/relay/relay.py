"""The relay of a process: one task that reads what doorbells announce and publishes it to the hub.

A token that changed is read at once, and then at most every `push_seconds`; all that are due are read together. Turns
follow one another, and streams open between them, so nothing is lost or told twice at any seam. A slow poll reads what
no doorbell announced. While the database is away the feeds keep their places and go on from there.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection
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
from klines.relay.messages import framed, now_ms
from klines.relay.opening import Ask, Behind, Opening, opened, read_for
from klines.relay.pulse import Pulse
from klines.relay.schedule import POLL_SECONDS, Schedule

READ_SECONDS = 3.0
OPEN_SECONDS = 2.0
TIDY_SECONDS = 0.5
# Between two pages of a long tape: slow enough for ordinary lines, unless the tape may be cut before it is read.
BACKLOG_SECONDS = 0.02
HASTE_SECONDS = 0.005
HASTE_TRADES = 65_536
RETRY_SECONDS = (0.1, 1.0)
TOKENS_AT_ONCE = 100
ANSWERS_SECONDS = 0.025
MAX_BACK_MS = 5_000
RESTART = 1012

logger = logging.getLogger("klines.relay")


class Pace(NamedTuple):
    """Least time between two pushes of a token, and how long a bar waits for late commits before it is told closed."""

    push_seconds: float
    grace_ms: int


@asynccontextmanager
async def open_relay(
    url: str, engines: Engines, hub: Hub, pace: Pace, forget: Callable[[], None]
) -> AsyncIterator[Relay]:
    """The relay between the database at `url`, read through `engines`, and the hub.

    `forget` is called when the database turns out to be another one than before: what was known of it may be wrong.
    """
    relay = Relay(engines, hub, pace, forget)
    async with AsyncExitStack() as stack:
        for name, work in (("reader", relay.read), ("listener", partial(relay.hear, url)), ("pulse", relay.pulse.beat)):
            await stack.enter_async_context(running(f"{name} of the streams", work, RETRY_SECONDS[1]))
        with suppress(TimeoutError):
            async with asyncio.timeout(READ_SECONDS):
                await relay.pulse.ready.wait()
        yield relay


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
        self._stir = asyncio.Event()
        self._tidied_at = 0.0
        self._moment_ms = 0
        self._epoch = ""

    async def open(self, ask: Ask) -> Opening:
        """Begin a stream; raises `Unavailable` while the database is away.

        The subscriber is held: attach it to a connection, or have it leave the hub.
        """
        if self.pulse.state == "stale":
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

    async def read(self) -> None:
        """Read and publish, for ever."""
        least, most = RETRY_SECONDS
        wait = least
        while True:
            try:
                async with self._engines.turn() as connection:
                    await self._resume(connection)
                    wait = least
                    await self._turns(connection)
            except Unavailable:
                self.pulse.failed()
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads processes, hides nothing
            wait = min(2 * wait, most)

    async def _resume(self, connection: AsyncConnection) -> None:
        """Look whether this is the database that it was: if not, every stream begins anew."""
        async with asyncio.timeout(READ_SECONDS):
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
            due = self._schedule.take(loop.time(), self._moment_ms)
            if due and loop.time() > self._tidied_at + TIDY_SECONDS:
                self._tidied_at = loop.time()
                self._schedule.keep(set(cast("Collection[Stream]", self._hub.topics())))
            for start in range(0, len(due), TOKENS_AT_ONCE):
                await self._advance(connection, due[start : start + TOKENS_AT_ONCE])
            self.pulse.succeeded()
            await self._rest(await self._answer())

    def _tell_the_time(self) -> None:
        moment_ms = now_ms() - self._pace.grace_ms
        if moment_ms < self._moment_ms - MAX_BACK_MS:
            logger.warning("the clock went back by %d s", (self._moment_ms - moment_ms) // 1000)
            self._moment_ms = moment_ms
            for feed in [one for one in self._schedule.feeds.values() if one.place.moment_ms > moment_ms]:
                self._give_up(feed, "bars were told closed before their time")
        self._moment_ms = max(self._moment_ms, moment_ms)

    async def _rest(self, wait: float) -> None:
        """Wait until something is due, rings or is asked for, or so many seconds are over."""
        now = asyncio.get_running_loop().time()
        until = min(now + wait, self._schedule.next_at(now, now_ms() - self._pace.grace_ms))
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
        if end.moment_ms < self._moment_ms:
            self._schedule.at(feed.token_id, now + BACKLOG_SECONDS)
        elif left := found.newest - end.sequence:
            self._schedule.at(feed.token_id, now + (HASTE_SECONDS if left > HASTE_TRADES else BACKLOG_SECONDS))
        found = feed.unrepeated(found, feed.place, end)
        begin, feed.place = feed.place, end
        for stream in asked.streams:
            for message, key in told(feed, stream, found, begin, end):
                self._hub.publish(stream, framed(message), key)

    async def _answer(self) -> float:
        """Open streams that were asked for; those that ask the same share one answer. How long the rest can wait."""
        until = asyncio.get_running_loop().time() + ANSWERS_SECONDS
        behind = set[Ask]()
        while (ask := self._asks.next()) is not None and ask not in behind:
            if asyncio.get_running_loop().time() > until:
                return 0.0
            # Whatever came since the feed's last turn, and the bars that ended, need no doorbell.
            self._schedule.at(ask.stream.token_id, 0.0)
            try:
                async with self._engines.opening() as connection, asyncio.timeout(OPEN_SECONDS):
                    await self._open(connection, ask)
            except Behind:
                self._asks.postpone(ask)
                behind.add(ask)
            except Unavailable as error:
                self._asks.refuse(error, ask)
            except Exception:
                self._asks.refuse(Unavailable("the stream cannot be opened", code="stream_lost"), ask)
                raise
        return BACKLOG_SECONDS if behind else POLL_SECONDS

    async def _open(self, connection: AsyncConnection, ask: Ask) -> None:
        now = asyncio.get_running_loop().time()
        feed = self._schedule.feeds.get(ask.stream.token_id)
        read = await read_for(connection, feed or Feed.new(ask.stream, ask.symbol, self._epoch), ask, self._moment_ms)
        feed = read.feed
        if feed.streams:
            self._publish(feed, read.wanted, read.own, now)
            if feed.token_id not in self._schedule.feeds or feed.place.moment_ms != self._moment_ms:
                raise Behind
        else:
            feed.place = Place(read.own.newest, self._moment_ms, read.own.newest)
        found = await opened(connection, ask, read)
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

    def _give_up(self, feed: Feed, reason: str) -> None:
        logger.warning("the streams of %s begin anew: %s", feed.symbol, reason)
        self._schedule.drop(feed)
        for stream in list(feed.streams):
            self._hub.close_topic(stream, RESTART, "cannot continue: reconnect with the cursor")
