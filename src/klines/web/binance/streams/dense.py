"""Bars of one stream without gaps, in the order of their times: each is told closed exactly once. Pure.

Binance has a bar for every bucket: one without trades is flat at the previous close. The native stream has bars with
trades only, and says in its cursors up to which moment all bars that ended were told. So a bucket is closed here when
that moment has passed its end, and never before a trade of it could still come in time.

A late trade changes a bar that was told closed. Binance has no event for that, and clients append by time: a second
`x: true` would be a second bar to one, a violation of time to the next. So it is not told; REST has the bar.
A bar ahead of the clock is told when its bucket begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from klines.interval import Width
from klines.web.binance.streams.native import Bar

# Closed bars at once, besides those with trades: as many as a client's mailbox has room for.
MAX_GAP = 300
# Bars ahead of the clock that are remembered open; the native stream tells the others again when they close.
MAX_AHEAD = 1_000


class Told(NamedTuple):
    """A bar, and whether it is closed."""

    bar: Bar
    closed: bool


class Dense:
    """The bars of one width; all times are epoch milliseconds. Silent before the first trade."""

    def __init__(self, width: Width) -> None:
        self._width = width
        # The bucket that is being told; those before it are closed.
        self._at: int | None = None
        self._known: dict[int, Bar] = {}
        self._last: Bar | None = None
        self._unsaid = False

    def begin(self, bars: Sequence[Bar], moment_ms: int) -> None:
        """Begin with the latest bars, ascending, where those that ended by the moment are closed."""
        present = self._width.floor(moment_ms)
        closed = [bar for bar in bars if bar.open_time < present]
        self._last = closed[-1] if closed else None
        self._known = {bar.open_time: bar for bar in bars if bar.open_time >= present}
        self._at = present if bars else None
        self._unsaid = False

    def take(self, bar: Bar | None, moment_ms: int) -> list[Told]:
        """What is to be told now that this bar came, if one did, and bars that ended by the moment are closed.

        Closed bars come first. At most `MAX_GAP` buckets without trades are closed at once; older ones are left out.
        """
        changed = bar is not None and self._put(bar, moment_ms)
        at = self._at
        told = self._close(moment_ms)
        self._unsaid = self._unsaid or self._at != at
        present = self._known.get(self._at) if self._at is not None else None
        if present is not None and (changed or self._unsaid):
            self._unsaid = False
            told.append(Told(present, closed=False))
        return told

    def unsaid(self) -> Bar | None:
        """The flat bar of a bucket that began and was not told yet; a trade may come instead, so there is time."""
        if not self._unsaid:
            return None
        self._unsaid = False
        return self.present()

    def present(self) -> Bar | None:
        """The open bar; None before the first trade."""
        if self._at is None:
            return None
        return self._known.get(self._at) or (self._flat(self._at, self._last) if self._last else None)

    def settled(self, now_ms: int) -> bool:
        """Whether all is told that can be until another bar comes or the bucket of this time is over."""
        return self._at is None or (self._at >= self._width.floor(now_ms) and not self._unsaid)

    def _put(self, bar: Bar, moment_ms: int) -> bool:
        """Remember a bar; whether it is the one that is being told."""
        at = self._at
        if at is None or (self._last is None and at not in self._known and bar.open_time < at):
            # Nothing was told yet. A bar ahead of the clock waits.
            at = self._at = min(bar.open_time, self._width.floor(moment_ms))
        if bar.open_time < at:
            if self._last is not None and bar.open_time >= self._last.open_time:
                self._last = bar
                self._unsaid = self._unsaid or at not in self._known
            return False
        if bar.open_time == at or bar.open_time in self._known or len(self._known) < MAX_AHEAD:
            self._known[bar.open_time] = bar
        return bar.open_time == at

    def _close(self, moment_ms: int) -> list[Told]:
        if self._at is None:
            return []
        end = self._width.floor(moment_ms)
        opens: Sequence[int] = range(self._at, end, self._width.milliseconds)
        if len(opens) > MAX_GAP:
            opens = [*sorted(open_ms for open_ms in self._known if open_ms < opens[-MAX_GAP]), *opens[-MAX_GAP:]]
        told = []
        for open_ms in opens:
            bar = self._known.pop(open_ms, None)
            if bar is not None:
                self._last = bar
            elif self._last is not None:
                bar = self._flat(open_ms, self._last)
            if bar is not None:
                told.append(Told(bar, closed=True))
        self._at = max(self._at, end)
        return told

    def _flat(self, open_ms: int, last: Bar) -> Bar:
        price, zero = last.close, "0"
        end_ms = open_ms + self._width.milliseconds - 1
        return Bar(open_ms, end_ms, price, price, price, price, zero, zero, 0, zero, zero, -1, -1)
