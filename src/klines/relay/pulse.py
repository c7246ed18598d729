"""Whether the streams are live or stale, and what clients hear of it; the beat that keeps connections honest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import cast

from klines.cursor import Stream
from klines.errors import Unavailable
from klines.hub import Hub
from klines.listener import Deafened, Doorbell, Resumed, Silenced
from klines.relay.asks import Asks
from klines.relay.feed import Feed
from klines.relay.messages import State, framed, heartbeat
from klines.relay.schedule import Schedule
from klines.tally import Spread

STALE_SECONDS = 3.0
PULSE_SECONDS = 0.5
# Up to the time that a read may take.
TURN_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 3)

logger = logging.getLogger("klines.relay")


class Pulse:
    """Live as long as turns succeed; `ready` is set when they did for the first time.

    Counted: `turns` by their seconds, `pushes` by the seconds from the doorbell of a feed to its frames in the hub, how
    many feeds were read, how often the listener resumed; and `heard_at`, when it was last heard, in the loop's seconds.
    """

    def __init__(self, hub: Hub, schedule: Schedule, asks: Asks) -> None:
        self.state: State = "stale"
        self.ready = asyncio.Event()
        self._hub = hub
        self._schedule = schedule
        self._asks = asks
        # Since a turn succeeded; beats, not seconds: what our own event loop was late says nothing of the database.
        self._beats = 0
        self.turns, self.pushes = Spread(TURN_BOUNDS), Spread(TURN_BOUNDS)
        self.read = self.resumed = 0
        self.listening, self.deafened, self.heard_at = False, False, asyncio.get_running_loop().time()
        self.recovered: Callable[[], None] = lambda: None  # called when the listener is connected, at first or again

    async def beat(self) -> None:
        """Send heartbeats, close whoever is stuck, and notice when turns take too long, for ever."""
        while True:
            self._beats += 1
            if self._beats * PULSE_SECONDS > STALE_SECONDS:
                self.failed()
            self._hub.sweep()
            self._hub.beat(self._frame)
            await asyncio.sleep(PULSE_SECONDS)

    def heard(self, event: Doorbell | Resumed | Silenced | Deafened) -> None:
        """The listener said something."""
        stood, self.listening = self.listening, not isinstance(event, Silenced | Deafened)
        self.deafened = isinstance(event, Deafened)
        if stood or self.listening:
            self.heard_at = asyncio.get_running_loop().time()
        if isinstance(event, Resumed):
            self.resumed += 1
            self.recovered()

    @property
    def silent_seconds(self) -> float:
        """Since the listener fell silent, or since the start; 0 while it proves itself, and after a flood."""
        return 0.0 if self.listening or self.deafened else asyncio.get_running_loop().time() - self.heard_at

    def told(self, feeds: Iterable[Feed]) -> None:
        """What came to these feeds is in the hub."""
        now = asyncio.get_running_loop().time()
        for feed in feeds:
            self.read += 1
            if feed.rung:
                self.pushes.add(now - feed.rung)
                feed.rung = 0.0

    def succeeded(self, began: float, feeds: int) -> None:
        """A turn that read so many feeds came to its end."""
        self._beats = 0
        if feeds:
            self.turns.add(asyncio.get_running_loop().time() - began)
        if self.state == "stale":
            self._tell("live")
            self.ready.set()

    def failed(self) -> None:
        """The database is away: everyone hears of it at once, and who asks for a stream is refused."""
        self._asks.refuse(Unavailable("the database does not answer", code="database_unavailable"))
        if self.state == "live":
            self._tell("stale")

    def _tell(self, state: State) -> None:
        self.state = state
        logger.log(logging.INFO if state == "live" else logging.WARNING, "the streams are %s", state)
        self._hub.beat(self._frame, everyone=True)

    def _frame(self, topic: object) -> bytes:
        stream = cast(Stream, topic)
        feed = self._schedule.feeds.get(stream.token_id)
        return framed(heartbeat(self.state, feed.cursor(stream) if feed else None))
