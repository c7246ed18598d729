"""Token buckets: at most a burst at once and a steady rate after it, for each of many clients.

Kept as GCRA (the generic cell rate algorithm of ATM): one number per client, the moment at which its bucket will be
full again. At most `MAX_CLIENTS` are remembered; the one that was silent longest is forgotten, which gives it a full
bucket and never refuses anybody. The caller brings the clock (seconds, monotonic); times that run backwards give
nothing. Pure.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import NamedTuple

MAX_CLIENTS = 50_000
# Of those that are longest silent, how many a call may forget because their buckets are full.
SWEPT = 2


class Level(NamedTuple):
    """What a bucket holds: what is `left` of it, what is `used`, and the seconds until it is full."""

    left: int
    used: int
    full_in: float


class Buckets:
    """One bucket per client, which holds `burst` and fills within `seconds`."""

    def __init__(self, burst: int, seconds: float, most: int = MAX_CLIENTS) -> None:
        self.burst = burst
        self.seconds = seconds
        self._each = seconds / burst
        self._most = most
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, client: str, cost: int, now: float) -> float:
        """Take `cost` out of a bucket: 0.0, or in how many seconds there will be so much, and nothing was taken.

        What costs more than a burst is taken from a full bucket: it empties it.
        """
        full_at = max(self._full_at.get(client, now), now)
        after = full_at + min(cost, self.burst) * self._each
        wait = after - now - self.seconds
        # Sums of many small costs are not exact: a billionth of the whole is nothing.
        if wait > self.seconds * 1e-9:
            self._full_at.move_to_end(client)
            return wait
        self._remember(client, after, now)
        return 0.0

    def add(self, client: str, cost: int, now: float) -> None:
        """Count a cost that nobody refuses; the bucket may owe it."""
        self._remember(client, max(self._full_at.get(client, now), now) + cost * self._each, now)

    def give_back(self, client: str, cost: int, now: float) -> None:
        """Undo a `take` of so much; whom nobody remembers has a full bucket already."""
        if client in self._full_at:
            self._full_at[client] = max(self._full_at[client] - min(cost, self.burst) * self._each, now)

    def level(self, client: str, now: float) -> Level:
        """What a client's bucket holds."""
        full_in = max(self._full_at.get(client, now) - now, 0.0)
        used = math.ceil(full_in / self._each - 1e-6)
        return Level(max(self.burst - used, 0), used, full_in)

    def _remember(self, client: str, full_at: float, now: float) -> None:
        self._full_at[client] = full_at
        self._full_at.move_to_end(client)
        for _ in range(SWEPT):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._most:
                break
            del self._full_at[oldest]
            if not self._full_at:
                break
