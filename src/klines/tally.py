"""What is counted where no library for metrics may be seen: plain numbers, read when somebody asks for them. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Spread:
    """How measured values spread: `counts[n]` are at most `bounds[n]` and above the bound before; the last is the rest.

    For one thread.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
