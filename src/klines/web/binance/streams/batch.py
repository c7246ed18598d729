"""What one moment has to tell the clients of a stream: encoded once per unit of time, framed once per shape. Pure.

Shapes are raw events, and events inside `{"stream", "data"}` with the name as the client wrote it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from klines.relay.messages import framed

MILLISECONDS = 1
MICROSECONDS = 1000
# Spellings and shapes of one stream: more are made each time.
MAX_KEPT = 16

Encode = Callable[[int], Sequence[bytes]]


class Batch:
    """Some events in their order. `encode` gives the JSON of each, with so many units of time in a millisecond."""

    def __init__(self, encode: Encode) -> None:
        self._encode = encode
        self._events: dict[int, Sequence[bytes]] = {}
        self._frames: dict[tuple[str | None, int], bytes] = {}

    def frames(self, name: str | None, per_ms: int) -> bytes:
        """All events as frames, one behind the other; with a name each is wrapped."""
        found = self._frames.get((name, per_ms))
        if found is None:
            found = b"".join(framed(one if name is None else _wrapped(name, one)) for one in self._encoded(per_ms))
            if len(self._frames) < MAX_KEPT:
                self._frames[name, per_ms] = found
        return found

    def _encoded(self, per_ms: int) -> Sequence[bytes]:
        if per_ms not in self._events:
            self._events[per_ms] = self._encode(per_ms)
        return self._events[per_ms]


class Watcher(Protocol):
    """A connection that watches streams."""

    def give(self, batch: Batch, name: str, key: Hashable | None) -> None:
        """Send a batch of the stream that it calls `name`; the newest of one key is enough."""

    def end(self, reason: str) -> None:
        """One of its streams cannot be continued."""


class Watchers(dict[Watcher, str]):
    """The connections that watch one stream, each with its own spelling of the name; `claims` counts who holds it."""

    claims = 0

    def give(self, batch: Batch, key: Hashable | None = None) -> None:
        """Give them all a batch."""
        for watcher, name in tuple(self.items()):
            watcher.give(batch, name, key)


class Current(NamedTuple):
    """What a stream shows to whoever joins."""

    batch: Batch
    key: Hashable


def payload_of(frame: bytes) -> memoryview:
    """The payload of an unmasked frame."""
    size = frame[1]
    return memoryview(frame)[2 if size < 126 else 4 if size == 126 else 10 :]


def now(per_ms: int) -> int:
    """The clock, in units of which so many are in a millisecond."""
    return time.time_ns() * per_ms // 1_000_000


def _wrapped(name: str, event: bytes) -> bytes:
    return b'{"stream":%b,"data":%b}' % (msgspec.json.encode(name), event)
