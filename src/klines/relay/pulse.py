"""Whether the streams are live or stale, and what clients hear of it; the beat that keeps connections honest."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

from klines.cursor import Stream
from klines.errors import Unavailable
from klines.hub import Hub
from klines.relay.asks import Asks
from klines.relay.messages import State, framed, heartbeat
from klines.relay.schedule import Schedule

STALE_SECONDS = 3.0
PULSE_SECONDS = 0.5

logger = logging.getLogger("klines.relay")


class Pulse:
    """Live as long as turns succeed; `ready` is set when they did for the first time."""

    def __init__(self, hub: Hub, schedule: Schedule, asks: Asks) -> None:
        self.state: State = "stale"
        self.ready = asyncio.Event()
        self._hub = hub
        self._schedule = schedule
        self._asks = asks
        self._succeeded_at = 0.0

    async def beat(self) -> None:
        """Send heartbeats, close whoever is stuck, and notice when turns take too long, for ever."""
        while True:
            if asyncio.get_running_loop().time() - self._succeeded_at > STALE_SECONDS:
                self.failed()
            self._hub.sweep()
            self._hub.beat(self._frame)
            await asyncio.sleep(PULSE_SECONDS)

    def succeeded(self) -> None:
        """A turn came to its end."""
        self._succeeded_at = asyncio.get_running_loop().time()
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
