"""Filling the buckets in which nothing was traded. Pure.

`prev` repeats the previous close as a flat bar with zero volume, as exchanges publish it; `null` says that there is no
price. Both are marked `"filled": true`. Nothing is filled before the first trade, nor after the present bucket.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

from klines.interval import Interval

Fill = Literal["none", "prev", "null"]
FILLS: tuple[Fill, ...] = ("none", "prev", "null")


class Bar(NamedTuple):
    """A bar as far as filling needs it: open time, closing price as text, and the whole as JSON."""

    open_ms: int
    close: str
    json: str


class Grid(NamedTuple):
    """The buckets that open in `[first_ms, end_ms)`."""

    interval: Interval
    first_ms: int
    end_ms: int

    @property
    def opens(self) -> range:
        """Open times, ascending, in epoch milliseconds."""
        return range(self.first_ms, self.end_ms, self.interval.milliseconds)


def grid(
    interval: Interval, limit: int, from_ms: int | None, to_ms: int | None, *, first_ms: int, last_ms: int, now_ms: int
) -> Grid:
    """The buckets of a request: from the one of the first trade to the present one (or the last trade's, if later)."""
    width = interval.milliseconds
    end = max(interval.floor(now_ms), last_ms) + width
    if to_ms is not None:
        end = min(end, interval.ceil(to_ms))
    if from_ms is not None:
        start = max(interval.ceil(from_ms), first_ms)
        return Grid(interval, start, min(end, start + limit * width))
    return Grid(interval, max(end - limit * width, first_ms), end)


def filled(bars: Iterable[Bar], buckets: Grid, previous_close: str | None, fill: Fill, now_ms: int) -> Iterator[str]:
    """The JSON of every bucket in `buckets`, ascending; `bars` ascend too and lie inside it.

    `previous_close` is the close before the first bucket; None only where the first bucket has a bar.
    """
    given = {bar.open_ms: bar for bar in bars}
    close = previous_close
    for open_ms in buckets.opens:
        bar = given.get(open_ms)
        if bar is not None:
            close = bar.close
            yield bar.json
        else:
            price = f'"{close}"' if fill == "prev" and close is not None else "null"
            yield _flat(open_ms, buckets.interval, price, now_ms)


def _flat(open_ms: int, interval: Interval, price: str, now_ms: int) -> str:
    end_ms = open_ms + interval.milliseconds
    return (
        f'{{"open_time":{open_ms},"close_time":{end_ms - 1},'
        f'"open":{price},"high":{price},"low":{price},"close":{price},"volume":"0","quote_volume":"0","trades":0,'
        f'"buy_volume":"0","buy_quote_volume":"0","first_trade_id":null,"last_trade_id":null,'
        f'"closed":{str(end_ms <= now_ms).lower()},"filled":true}}'
    )
