"""A connection that listens, and what it may be told in a second: whoever may connect may notify, and without end.

What comes is counted as the driver reads it, before anything is done about it. Past the bound the connection is cut at
once, with all that waits in it. One read of the socket, of 256 KiB at the most, is digested per turn of the event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from klines.errors import Unavailable

# In a second. A service that commits without pause rings some thousands of times, with few tokens each.
MAX_NOTIFICATIONS = 20_000
MAX_FOREIGN = 5_000
MAX_CHARACTERS = 4 * 2**20

LEAST_SECONDS = 1.0
MOST_SECONDS = 30.0

# The driver's class has a parameter for checkers only.
if TYPE_CHECKING:
    _Connection = asyncpg.Connection[Any]
else:
    _Connection = asyncpg.Connection


class Flood(Unavailable):
    """More notifications than can be honest."""


class Allowance:
    """What one second may bring; `exceeded` says in words what was too much, and is empty while nothing was. Pure."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.exceeded = ""
        self._clock = clock
        self._began = clock()
        self._came = self._foreign = self._characters = 0

    def take(self, characters: int) -> bool:
        """Count a notification with a payload of so many characters; False when it is one too many."""
        if self._clock() >= self._began + 1:
            self._began = self._clock()
            self._came = self._foreign = self._characters = 0
        self._came += 1
        self._characters += characters
        if self._came > MAX_NOTIFICATIONS:
            self._exceed(f"more than {MAX_NOTIFICATIONS} notifications")
        elif self._characters > MAX_CHARACTERS:
            self._exceed(f"more than {MAX_CHARACTERS} characters of notifications")
        return not self.exceeded

    def take_foreign(self) -> bool:
        """Count one of those taken as not ours; False when it is one too many."""
        self._foreign += 1
        if self._foreign > MAX_FOREIGN:
            self._exceed(f"more than {MAX_FOREIGN} notifications that are not ours")
        return not self.exceeded

    def _exceed(self, what: str) -> None:
        self.exceeded = self.exceeded or f"{what} came in a second"


class Deafness:
    """For how many seconds nobody listens after a flood: longer after each that follows soon."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def after(self, stood_seconds: float) -> float:
        """The connection that was flooded had stood for so long."""
        again = self._seconds and stood_seconds < MOST_SECONDS
        self._seconds = min(2 * self._seconds, MOST_SECONDS) if again else LEAST_SECONDS
        return self._seconds


class Listening(_Connection):
    """A connection of the driver with an `allowance` of its own.

    The driver calls `_process_notification` for each notification while it reads, and has no public place for that.
    """

    def __init__(self, protocol: Any, transport: Any, loop: asyncio.AbstractEventLoop, *rest: Any) -> None:
        super().__init__(protocol, transport, loop, *rest)
        self.allowance = Allowance(loop.time)
        self._pipe: asyncio.Transport = transport
        self._turns = loop
        self._paused = False

    def cut(self) -> None:
        """Drop it, whatever waits to be read."""
        self._pipe.abort()

    @contextmanager
    def answering(self, seconds: float) -> Iterator[None]:
        """Dropped unless what is inside ends in time."""
        # Not a timeout: that makes the driver open a second connection, to cancel the statement of the first.
        timer = self._turns.call_later(seconds, self.terminate)
        try:
            yield
        finally:
            timer.cancel()

    def _process_notification(self, pid: int, channel: str, payload: str) -> None:
        if self._pipe.is_closing():
            return
        if not self._paused:
            # An event loop may read a socket many times in a turn, as long as there is more.
            self._paused = True
            self._pipe.pause_reading()
            self._turns.call_soon(self._read_on)
        if self.allowance.take(len(payload)):
            super()._process_notification(pid, channel, payload)  # type: ignore[misc]
        else:
            self.cut()

    def _read_on(self) -> None:
        self._paused = False
        if not self._pipe.is_closing():
            self._pipe.resume_reading()
