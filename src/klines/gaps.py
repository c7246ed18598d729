"""Filling the buckets in which nothing was traded. Pure.

`prev` repeats the previous close as a flat bar with zero volume, as exchanges publish it; `null` says that there is no
price. Both are marked `"filled": true`. Nothing is filled before the first trade, nor after the present bucket.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from klines.interval import Width

Fill = Literal["none", "prev", "null"]
FILLS: tuple[Fill, ...] = ("none", "prev", "null")


class Bar(NamedTuple):
    """A bar as far as filling needs it: open time, closing price as text, and the whole as JSON."""

    open_ms: int
    close: str
    json: str


class Grid(NamedTuple):
    """The buckets that open in `[first_ms, end_ms)`."""

    width: Width
    first_ms: int
    end_ms: int

    @property
    def opens(self) -> range:
        """Open times, ascending, in epoch milliseconds."""
        return range(self.first_ms, self.end_ms, self.width.milliseconds)


class Request(NamedTuple):
    """Which buckets are asked for, as `klines.queries.window.Window` asks for bars; times in epoch milliseconds."""

    width: Width
    limit: int
    from_ms: int | None
    to_ms: int | None
    fill: Fill


def filled(request: Request, bars: Sequence[Bar], now_ms: int) -> tuple[list[str], int | None]:
    """The JSON of every bucket asked for, ascending, and the open time of the last one (None: none).

    `bars` ascend: the page of the same window without filling, and before it the last bar ahead of `from_ms`.
    Where a page without `from_ms` has gaps, it reaches back beyond the buckets, so the close before them is in it.
    """
    if not bars:
        return [], None
    buckets = _grid(request, bars, now_ms)
    given = {bar.open_ms: bar for bar in bars}
    close = next((bar.close for bar in reversed(bars) if bar.open_ms < buckets.first_ms), None)
    found = []
    for open_ms in buckets.opens:
        bar = given.get(open_ms)
        if bar is not None:
            close = bar.close
            found.append(bar.json)
        else:
            price = f'"{close}"' if request.fill == "prev" and close is not None else "null"
            found.append(_flat(open_ms, request.width, price, now_ms))
    return found, buckets.opens[-1] if found else None


def _grid(request: Request, bars: Sequence[Bar], now_ms: int) -> Grid:
    """From the bucket of the first trade to the present one, or the last trade's if that lies ahead."""
    width, width_ms = request.width, request.width.milliseconds
    end = max(width.floor(now_ms), bars[-1].open_ms) + width_ms
    if request.to_ms is not None:
        end = min(end, width.ceil(request.to_ms))
    if request.from_ms is None:
        # Fewer bars than asked for: the first of them is the token's first.
        start = end - request.limit * width_ms
        return Grid(width, max(start, bars[0].open_ms) if len(bars) < request.limit else start, end)
    start = max(width.ceil(request.from_ms), bars[0].open_ms)
    return Grid(width, start, min(end, start + request.limit * width_ms))


def _flat(open_ms: int, width: Width, price: str, now_ms: int) -> str:
    end_ms = open_ms + width.milliseconds
    return (
        f'{{"open_time":{open_ms},"close_time":{end_ms - 1},'
        f'"open":{price},"high":{price},"low":{price},"close":{price},"volume":"0","quote_volume":"0","trades":0,'
        f'"buy_volume":"0","buy_quote_volume":"0","first_trade_id":null,"last_trade_id":null,'
        f'"closed":{str(end_ms <= now_ms).lower()},"filled":true}}'
    )
