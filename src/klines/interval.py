"""The intervals a bar can have, and their arithmetic. Pure."""

from __future__ import annotations

from enum import Enum

from klines.errors import BadRequest, echo


class Interval(Enum):
    """A stored interval; the value is its name on the wire. Buckets are `[t, t + interval)` in UTC, days at 00:00."""

    S1 = "1s"
    M1 = "1m"
    M5 = "5m"
    M15 = "15m"
    H1 = "1h"
    H4 = "4h"
    D1 = "1d"

    @property
    def seconds(self) -> int:
        """Width in seconds."""
        return int(self.value[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[self.value[-1]]

    @property
    def milliseconds(self) -> int:
        """Width in milliseconds."""
        return self.seconds * 1000

    @property
    def relation(self) -> str:
        """Name of the relation that holds its bars."""
        return f"klines_{self.value}"

    def floor(self, time_ms: int) -> int:
        """Open time of the bucket that holds `time_ms` (epoch milliseconds)."""
        return time_ms - time_ms % self.milliseconds

    def ceil(self, time_ms: int) -> int:
        """The first open time at or after `time_ms` (epoch milliseconds)."""
        return -(-time_ms // self.milliseconds) * self.milliseconds


NAMES = tuple(interval.value for interval in Interval)


def parse_interval(text: str) -> Interval:
    """The interval called `text`; names are case-sensitive, as `1m` and `1M` differ everywhere in the field."""
    try:
        return Interval(text)
    except ValueError:
        detail = f"interval {echo(text)}: must be one of {' '.join(NAMES)}"
        raise BadRequest(detail, code="interval_invalid") from None
