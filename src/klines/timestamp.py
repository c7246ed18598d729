"""Times: epoch microseconds UTC inside, read from what the field writes, cut and never rounded.

Accepted are integers in a unit that is agreed beforehand, and ISO-8601 with an offset or `Z` and up to nine digits
of a second. A time without an offset is refused: nobody can know which one was meant.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

EARLIEST_US = 1_230_768_000_000_000  # 2009-01-01, before any market this service could hold
LATEST_US = 7_258_118_400_000_000  # 2200-01-01

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ISO = re.compile(r"(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2})(?:[.,](\d{1,9}))?(Z|z|[+-]\d{2}:?\d{2})?", re.ASCII)


class TimeError(ValueError):
    """A text that names no time; the message is the rule it breaks."""


def iso_us(text: str) -> int:
    """Epoch microseconds of an ISO-8601 time with an offset; raises `TimeError`."""
    match = _ISO.fullmatch(text)
    if match is None:
        raise TimeError("must be epoch milliseconds or ISO-8601 such as 2026-01-31T12:00:00Z" + _plus_hint(text))
    date, clock, fraction, offset = match.groups()
    if offset is None:
        raise TimeError("must carry an offset such as Z or +02:00")
    try:
        moment = datetime.fromisoformat(f"{date}T{clock}{'+00:00' if offset in 'Zz' else offset}")
    except ValueError as error:
        raise TimeError(f"must be a time that exists: {error}") from None
    return (moment - _EPOCH) // _MICROSECOND + int((fraction or "0").ljust(9, "0")[:6])


def to_datetime(time_us: int) -> datetime:
    """The moment as an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=time_us)


def to_us(moment: datetime) -> int:
    """Epoch microseconds of an aware datetime."""
    return (moment - _EPOCH) // _MICROSECOND


def _plus_hint(text: str) -> str:
    # An unescaped + in a query string arrives as a space.
    return "; write + as %2B" if re.search(r"\d \d{2}:?\d{2}$", text) else ""
