"""Fan-out of encoded frames to the connections of this process: synchronous, bounded, blind to what a frame says.

All it asks of a connection is a `Sink`, which tells its subscriber to `pause` and `resume`. It promises:

- A frame without a key reaches every subscriber of its topic exactly once, in the order of publication.
- A frame with a key replaces the one with that key that waits, and goes to the end: the newest arrives, in order.
- Frames for a subscriber that is held (not attached yet) or paused wait. Past `max_bytes` or `max_frames` they are
  dropped and the connection is closed with `TOO_SLOW`; its client comes back with the last cursor it saw.
- One slow, failing or leaving subscriber changes nothing for the others. After a close nothing is written.

One thread only. A sink may call its subscriber or `Hub.leave` from within `write` and `close`, but must not publish.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Hashable, Sequence
from typing import Final, Protocol

RESTART: Final = 1012
TOO_SLOW: Final = 4008
FAILED: Final = 4500
# The end of one bucket and the beginning of the next.
BYTES_PER_STREAM: Final = 1024
FRAMES_PER_STREAM: Final = 3

logger = logging.getLogger("klines.hub")
Topic = Hashable
# The key of heartbeats: equal to no key that a publisher can name.
_BEAT: Final = object()


class Sink(Protocol):
    """Where the frames of one connection go."""

    def write(self, frame: bytes) -> None:
        """Take one frame without blocking; may call `Subscriber.pause` before it returns."""

    def close(self, code: int, reason: str) -> None:
        """End the connection with a WebSocket close code; the hub calls it at most once."""

    def unsent(self) -> int:
        """The bytes it was given and has not sent yet: while it is paused, fewer of them mean that its peer reads."""


class _Room(dict["Subscriber", None]):
    """The subscribers of one topic, and when a frame was last published to it."""

    published = 0.0


class Subscriber:
    """One connection on one topic, made by `Hub.subscribe`; held until `attach`, without effect once left or closed."""

    __slots__ = ("_end", "_hub", "_over", "_paused", "_room", "_sink", "_size",
                 "_waiting", "_write", "_wrote", "streams", "topic")  # fmt: skip

    def __init__(self, topic: Topic, hub: Hub, room: _Room) -> None:
        # How many streams it carries besides one: each makes room for what all of them may tell at one moment.
        self.streams = 0
        self.topic, self._hub, self._room = topic, hub, room
        self._sink: Sink | None = None
        # The sink's own `write` while frames go straight through, else None: all that `publish` looks at.
        self._write: Callable[[bytes], None] | None = None
        self._wrote = 0.0
        self._waiting: OrderedDict[Hashable, bytes] = OrderedDict()
        self._size, self._over = 0, False
        self._paused: float | None = None
        self._end: tuple[int, str] | None = None

    def attach(self, sink: Sink, first: Sequence[bytes] = ()) -> None:
        """Write `first`, then what waits; from now on frames go straight through. RuntimeError when attached already.

        `first` is written whole, past a pause too: it exists already, so holding it back would save nothing.
        A subscriber that had to be closed while it was held closes the sink instead.
        """
        if self._sink is not None:
            raise RuntimeError("a subscriber is attached once")
        for frame in first:
            self._deliver(sink.write, frame)
        if self._over:
            _close(sink, self._end)
            return
        # Only now: what waits must not overtake `first` when the sink pauses and resumes within it.
        self._sink = sink
        self._wrote = self._hub.clock()
        if self._paused is None:
            self._drain(sink)

    def put(self, frame: bytes, key: Hashable | None = None) -> None:
        """Give a frame to this subscriber alone; `key` as for `Hub.publish`."""
        if self._over:
            return
        if self._write is not None:
            self._wrote = self._hub.clock()
            self._deliver(self._write, frame)
            return
        key = object() if key is None else key
        self._hub.conflated += key in self._waiting
        self._size += len(frame) - len(self._waiting.pop(key, b""))
        self._waiting[key] = frame
        most_bytes = self._hub.max_bytes + self.streams * BYTES_PER_STREAM
        if self._size > most_bytes or len(self._waiting) > self._hub.max_frames + self.streams * FRAMES_PER_STREAM:
            self._finish(TOO_SLOW, "too slow: reconnect with the cursor")

    def pause(self) -> None:
        """The sink's buffer is full: frames wait from now on. Saying it again does not restart the time of `sweep`."""
        if self._paused is not None:
            return
        self._paused = self._hub.clock()
        if self._write is not None:
            self._write = None
            # Whoever flows has had the last frame of its topic; `publish` notes the time once for all of them.
            self._wrote = max(self._wrote, self._room.published)

    def resume(self) -> None:
        """The sink's buffer has drained: write what waits, until it is full again."""
        paused, self._paused = self._paused, None
        if paused is not None and self._sink is not None:
            self._drain(self._sink)

    def _drain(self, sink: Sink) -> None:
        if self._waiting:
            self._wrote = self._hub.clock()
        while self._waiting and self._paused is None:
            _, frame = self._waiting.popitem(last=False)
            self._size -= len(frame)
            self._deliver(sink.write, frame)
        if self._paused is None and not self._over:
            self._write = sink.write

    def _deliver(self, write: Callable[[bytes], None], frame: bytes) -> None:
        try:
            if not self._over:
                write(frame)
        except Exception:
            self._fail()

    def _fail(self) -> None:
        logger.warning("a connection on %r failed to take a frame", self.topic, exc_info=True)
        self._finish(FAILED, "failed: reconnect with the cursor")

    def _finish(self, code: int, reason: str) -> None:
        """Close the connection: now, or as soon as it is attached."""
        if self._over:
            return
        sink = self._sink
        self._hub.leave(self)
        self._end = (code, reason)
        _close(sink, self._end)

    def _idle(self, since: float) -> bool:
        return self._sink is not None and max(self._wrote, self._room.published if self._write else 0.0) <= since


class Hub:
    """The subscribers of this process by topic; one that was closed is none any more.

    `max_bytes` and `max_frames` bound what waits for one subscriber; `clock` is in seconds and never goes back;
    `conflated` counts the frames that a newer one with their key replaced.
    """

    def __init__(
        self,
        *,
        max_bytes: int = 192 * 1024,
        max_frames: int = 1000,
        stuck_seconds: float = 6.0,
        idle_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_bytes, self.max_frames = max_bytes, max_frames
        self.stuck_seconds, self.idle_seconds = stuck_seconds, idle_seconds
        self.clock, self.conflated = clock, 0
        self._rooms: dict[Topic, _Room] = {}
        self._unsent: dict[Subscriber, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._rooms.values()))

    def waiting(self) -> list[int]:
        """The bytes that wait, by subscriber."""
        return [one._size for room in self._rooms.values() for one in room]

    def topics(self) -> Collection[Topic]:
        """The topics that have subscribers now: a copy."""
        return tuple(self._rooms)

    def subscribe(self, topic: Topic) -> Subscriber:
        """A new subscriber, held: what is published from now on waits for its `attach`."""
        room = self._rooms.setdefault(topic, _Room())
        subscriber = Subscriber(topic, self, room)
        room[subscriber] = None
        return subscriber

    def leave(self, subscriber: Subscriber) -> None:
        """Forget a subscriber and what waits for it; its sink stays open. Harmless when it has gone already."""
        subscriber._over = True
        subscriber._sink = subscriber._write = subscriber._paused = subscriber._end = None
        subscriber._waiting.clear()
        room = subscriber._room
        if subscriber in room:
            del room[subscriber]
            if not room:
                del self._rooms[subscriber.topic]

    def publish(self, topic: Topic, frame: bytes, key: Hashable | None = None) -> None:
        """Give a frame to all subscribers of a topic; with a `key`, in place of the one with that key that waits."""
        room = self._rooms.get(topic)
        if room is None:
            return
        room.published = self.clock()
        # A copy, as anyone may leave meanwhile; and `_write` only at its turn, as that may end or pause others.
        for subscriber in tuple(room):
            write = subscriber._write
            try:
                if write is None:
                    subscriber.put(frame, key)
                else:
                    write(frame)
            except Exception:
                subscriber._fail()

    def beat(self, frame_of: Callable[[Topic], bytes], *, everyone: bool = False) -> None:
        """Give a heartbeat to the attached subscribers that were written nothing for `idle_seconds`, or to everyone.

        Everyone includes the held: they too must learn what changed. `frame_of` is called once per topic, where needed.
        """
        since = self.clock() - self.idle_seconds
        for topic, room in tuple(self._rooms.items()):
            due = [one for one in room if everyone or one._idle(since)]
            frame = frame_of(topic) if due else b""
            for subscriber in due:
                subscriber.put(frame, _BEAT)

    def sweep(self) -> None:
        """Close with `TOO_SLOW` the attached that were paused at every call for `stuck_seconds` and sent nothing."""
        now, before = self.clock(), self._unsent
        paused = [one for room in self._rooms.values() for one in room if one._paused is not None]
        self._unsent = {one: one._sink.unsent() for one in paused if one._sink is not None}
        for subscriber, unsent in self._unsent.items():
            if unsent < before.get(subscriber, 0):
                subscriber._paused = now
            elif subscriber._paused is not None and subscriber._paused <= now - self.stuck_seconds:
                subscriber._finish(TOO_SLOW, "too slow: nothing was read for too long, reconnect with the cursor")

    def close_topic(self, topic: Topic, code: int, reason: str) -> None:
        """Close all subscribers of a topic with a WebSocket close code; the held ones as soon as they are attached."""
        for subscriber in tuple(self._rooms.get(topic, ())):
            subscriber._finish(code, reason)


def _close(sink: Sink | None, end: tuple[int, str] | None) -> None:
    try:
        if sink is not None and end is not None:
            sink.close(*end)
    except Exception:
        logger.warning("a connection failed to close", exc_info=True)
