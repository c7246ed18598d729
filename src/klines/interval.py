"""The intervals a bar can have, and their arithmetic. Pure.

Buckets are `[t, t + interval)` in UTC, counted from the epoch, so days begin at 00:00; weeks begin on Mondays, as
they do on every exchange and chart.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from klines.errors import BadRequest, echo

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
WEEK = UNITS["w"]
# 1970 began on a Thursday.
FIRST_MONDAY = 4 * UNITS["d"]
# Stored bars that one page may be made of: a width of at most 60 of them comes in pages of 5,000.
MAX_PARTS = 300_000
# The same for one bar of a stream, which is made anew at every push.
MAX_LIVE_PARTS = 900

# What exchanges and charts offer; of all others a token has only so many streams at once.
CUSTOMARY = frozenset(
    number * UNITS[unit]
    for unit, numbers in {
        "s": (1, 5, 10, 15, 30),
        "m": (1, 3, 5, 10, 15, 30, 45, 90),
        "h": (1, 2, 3, 4, 6, 8, 12),
        "d": (1, 2, 3),
        "w": (1,),
    }.items()
    for number in numbers
)

_NAME = re.compile(r"([1-9][0-9]{0,5})([smhdw])", re.ASCII)


class Interval(Enum):
    """A stored interval; the value is its name on the wire."""

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
        return int(self.value[:-1]) * UNITS[self.value[-1]]

    @property
    def relation(self) -> str:
        """Name of the relation that holds its bars."""
        return f"klines_{self.value}"


NAMES = tuple(interval.value for interval in Interval)
_STORED = {interval.seconds: interval for interval in sorted(Interval, key=lambda one: -one.seconds)}


class Width(NamedTuple):
    """The width of bars as a client may ask for it: a stored interval, or any multiple of one up to a week.

    Its buckets open `shift` seconds before those of UTC: the offset of a time zone.
    """

    seconds: int
    shift: int = 0

    @property
    def name(self) -> str:
        """Its name on the wire, in the largest unit that leaves no rest: `90m`, but `1m` for sixty seconds."""
        unit = max((unit for unit in UNITS if self.seconds % UNITS[unit] == 0), key=UNITS.__getitem__)
        return f"{self.seconds // UNITS[unit]}{unit}"

    @property
    def source(self) -> Interval:
        """The largest stored interval that divides it and its shift: its bars are made of that one's."""
        divides = (one for width, one in _STORED.items() if self.seconds % width == self.shift % width == 0)
        return next(divides)

    @property
    def parts(self) -> int:
        """How many stored bars one of its bars is made of, at most; 1: it is stored itself."""
        return 1 if self.shift == 0 and self.seconds in _STORED else self.seconds // self.source.seconds

    @property
    def most(self) -> int:
        """How many bars of it one page may have."""
        return MAX_PARTS // self.parts

    @property
    def milliseconds(self) -> int:
        """Width in milliseconds."""
        return self.seconds * 1000

    @property
    def origin_ms(self) -> int:
        """The open time that buckets are counted from, in epoch milliseconds."""
        return ((FIRST_MONDAY if self.seconds == WEEK else 0) - self.shift) * 1000

    def floor(self, time_ms: int) -> int:
        """Open time of the bucket that holds `time_ms` (epoch milliseconds)."""
        return time_ms - (time_ms - self.origin_ms) % self.milliseconds

    def ceil(self, time_ms: int) -> int:
        """The first open time at or after `time_ms` (epoch milliseconds)."""
        return self.floor(time_ms + self.milliseconds - 1)


def parse_interval(text: str) -> Width:
    """The width called `text`; names are case-sensitive, as `1m` and `1M` differ everywhere in the field."""
    found = _NAME.fullmatch(text)
    seconds = int(found[1]) * UNITS[found[2]] if found else 0
    if not 0 < seconds <= WEEK:
        detail = (
            f"interval {echo(text)}: must be a number and one of {' '.join(UNITS)}, from 1s to 1w, such as 1m or 45s"
        )
        raise BadRequest(detail, code="interval_invalid")
    return Width(seconds)


def parse_live_interval(text: str) -> Width:
    """As `parse_interval`, for a stream."""
    width = parse_interval(text)
    if width.parts > MAX_LIVE_PARTS:
        made = f"each of its bars is made of up to {width.parts} bars of {width.source.value}"
        raise BadRequest(f"interval {text}: {made}, a stream's of at most {MAX_LIVE_PARTS}", code="interval_invalid")
    return width
