"""When a feed is to be read: when it changed, but not more often than it may; when bars end; and by poll. Pure.

Times are the event loop's seconds, moments epoch milliseconds: a bar has ended by a moment, which is the clock less
the grace for late commits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import ceil

from klines.cursor import Stream
from klines.errors import Unavailable
from klines.interval import CUSTOMARY, Width
from klines.relay.feed import Feed

POLL_SECONDS = 1.0
HELD_SECONDS = 0.005
# Widths of a token besides the customary ones: each is made anew at every push.
MAX_ODD = 32
# Stored bars that the present bars of all such streams of the process may be made of: one turn may read them all.
MAX_ODD_PARTS = 20_000


class Crowded(Unavailable):
    """The streams that are watched are of too many different widths already, or of too costly ones."""


def refuse_odd(stream: Stream, watched: Collection[Stream]) -> None:
    """Raise `Crowded` if one more odd width is too many beside the streams that are watched, of whatever token."""
    if stream.seconds in {0, *CUSTOMARY} or stream in watched:
        return
    odd = {one for one in watched if one.seconds not in {0, *CUSTOMARY}}
    if sum(one.token_id == stream.token_id for one in odd) >= MAX_ODD:
        detail = f"{MAX_ODD} intervals of this token besides the customary ones are watched already"
        raise Crowded(detail, code="intervals_exhausted")
    width = Width(stream.seconds)
    if sum(Width(one.seconds).parts for one in odd) + width.parts > MAX_ODD_PARTS:
        made = f"a bar of {width.name} is made of up to {width.parts} stored ones"
        rule = f"all that are watched besides the customary intervals, of whatever token, of at most {MAX_ODD_PARTS}"
        raise Crowded(f"{made}, and {rule}", code="intervals_exhausted")


class Schedule:
    """The feeds that are watched, by token, and when each is due."""

    def __init__(self, push_seconds: float) -> None:
        self.feeds: dict[int, Feed] = {}
        self._push_seconds = push_seconds
        self._widths: set[int] = set()
        self._due: dict[int, float] = {}
        self._ended: dict[int, int] = {}
        self._poll_at = 0.0

    def watch(self, feed: Feed, *streams: Stream) -> None:
        """Somebody watches these streams of a feed."""
        self.feeds[feed.token_id] = feed
        for stream in streams:
            feed.streams[stream] = feed.address(stream)
            self._widths.add(stream.seconds)

    def keep(self, watched: set[Stream]) -> None:
        """Nobody watches any other stream."""
        for feed in list(self.feeds.values()):
            for stream in feed.streams.keys() - watched:
                del feed.streams[stream]
            if not feed.streams and not feed.held:
                self.drop(feed)
        self._widths = {stream.seconds for stream in watched}
        self._ended = {seconds: opened for seconds, opened in self._ended.items() if seconds in self._widths}

    def drop(self, feed: Feed) -> None:
        """Nobody watches this feed."""
        self.feeds.pop(feed.token_id, None)
        self._due.pop(feed.token_id, None)

    def ring(self, tokens: Iterable[int] | None, now: float) -> None:
        """These tokens changed, or (None) any may have: the watched ones are due as soon as they may be."""
        changed = self.feeds.keys() if tokens is None else self.feeds.keys() & set(tokens)
        for token_id in changed - self._due.keys():
            allowed = self.feeds[token_id].allowed
            # A poll, and what rings for any token, says of none when it changed.
            self.feeds[token_id].rung = 0.0 if tokens is None else now
            self._due[token_id] = now if allowed <= now else self._together(allowed)

    def _together(self, time: float) -> float:
        # Feeds that have to wait are due in groups, a quarter of the interval apart: a read for each costs more.
        grid = self._push_seconds / 4
        return ceil(time / grid) * grid if grid else time

    def at(self, token_id: int, time: float) -> None:
        """This feed is due at a time of its own, if it is watched still."""
        if token_id in self.feeds:
            self._due[token_id] = min(time, self._due.get(token_id, time))

    def take(self, now: float, moment_ms: int) -> list[Feed]:
        """The feeds to read now; they are no longer due."""
        if now >= self._poll_at:
            self._poll_at = now + POLL_SECONDS
            self.ring(None, now)
        due = {token_id for token_id, at in self._due.items() if at <= now} | self._where_bars_ended(moment_ms)
        free = []
        for feed in [self.feeds[token_id] for token_id in sorted(due & self.feeds.keys())]:
            if feed.held:
                self._due[feed.token_id] = now + HELD_SECONDS
                continue
            if self._due.pop(feed.token_id, None) is not None:
                # Also when nothing turns out to have come: forged doorbells must not make reads more frequent.
                feed.allowed = now + self._push_seconds
            free.append(feed)
        return free

    def told(self, feeds: Iterable[Feed], began: float, now: float) -> None:
        """Telling these has had the event loop since then: for as long it is for others at the least."""
        for feed in feeds:
            feed.allowed = max(feed.allowed, now + (now - began))

    def _where_bars_ended(self, moment_ms: int) -> set[int]:
        crossed = set()
        for seconds in self._widths - {0}:
            opened = Width(seconds).floor(moment_ms)
            if self._ended.get(seconds) != opened:
                self._ended[seconds] = opened
                crossed.add(seconds)
        if not crossed:
            return set()
        return {feed.token_id for feed in self.feeds.values() if any(one.seconds in crossed for one in feed.streams)}

    def next_at(self, now: float, moment_ms: int) -> float:
        """When something is due next, if nothing rings before."""
        ends = [(Width(seconds).ceil(moment_ms + 1) - moment_ms) / 1000 for seconds in self._widths - {0}]
        return min([self._poll_at, *self._due.values(), *(now + left for left in ends)])
