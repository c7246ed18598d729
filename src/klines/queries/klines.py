"""Bars of one token and interval: as one JSON text, or row by row for filling the gaps between them."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Select,
    Subquery,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    union_all,
)
from sqlalchemy import Interval as Span
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.gaps import Bar
from klines.interval import Interval
from klines.queries.window import BEFORE, MOMENT, Shape, Window
from klines.queries.wire import Column, decimal_text, epoch_ms, json_array, json_object, quoted
from klines.tables import klines

COLUMNS = tuple(column.name for column in klines[Interval.S1].columns)


class Page(NamedTuple):
    """Bars as the inside of a JSON array, ascending, and the open time of the last one (None: no bars)."""

    json: str
    last_open_ms: int | None


async def page(connection: AsyncConnection, token_id: int, interval: Interval, window: Window, now: datetime) -> Page:
    """The bars of a window in one text."""
    values = window.values(token_id) | {"now": now}
    text, last_open_ms = (await connection.execute(_page(interval, window.shape), values)).one()
    return Page(text or "", last_open_ms)


async def rows(
    connection: AsyncConnection, token_id: int, interval: Interval, window: Window, now: datetime
) -> list[Bar]:
    """The bars of a window one by one, ascending; if it has a beginning, the last bar before it comes first."""
    values = window.values(token_id) | {"now": now}
    return [Bar(*row) for row in await connection.execute(_rows(interval, window.shape), values)]


def latest(interval: Interval) -> Select[Any]:
    """The statement behind a page of the latest bars, with parameters as `Window` names them, and `now`."""
    return _page(interval, Window(1).shape)


# Built once per interval and shape: building one takes longer than running it.
@cache
def _page(interval: Interval, shape: Shape) -> Select[Any]:
    bars = _bars(interval, shape)
    return select(json_array(_json(bars, interval), bars.c.time), epoch_ms(func.max(bars.c.time)))


@cache
def _rows(interval: Interval, shape: Shape) -> Select[Any]:
    bars = _bars(interval, shape)
    if shape.begins:
        # In one statement with the page, so that both are of one moment.
        bars = union_all(select(bars), select(_bars(interval, BEFORE))).subquery("with_previous")
    return select(epoch_ms(bars.c.time), decimal_text(bars.c.close), _json(bars, interval)).order_by(bars.c.time)


def _bars(interval: Interval, shape: Shape) -> Subquery:
    # The limit stands inside both sides, so that neither is read further than the page needs.
    live = table("live_klines", *map(column, COLUMNS), column("seconds"), schema="klines_internal")
    retired = table(f"retired_{interval.value}", *map(column, COLUMNS), schema="klines_internal")
    young = _side(live, shape).where(live.c.seconds == literal_column(str(interval.seconds))).subquery("young")
    old = _side(retired, shape).subquery("old")
    both = select(young).union_all(select(old)).subquery("both")
    return shape.page(select(both), both.c.time).subquery("bars")


def _side(side: Any, shape: Shape) -> Select[Any]:
    return shape.page(shape.restrict(select(*(side.c[name] for name in COLUMNS)), side), side.c.time)


def _json(bar: Subquery, interval: Interval) -> Column:
    return bar_json(bar, literal_column(str(interval.seconds), BigInteger), bindparam("now", type_=MOMENT))


def bar_json(bar: Any, seconds: Column, now: Column) -> Column:
    """A bar of `seconds` as REST and the streams show it; it is closed if it ended by `now`."""
    opened = epoch_ms(bar.c.time)
    return json_object(
        {
            "open_time": [opened],
            "close_time": [opened + seconds * 1000 - 1],
            **{name: quoted(decimal_text(bar.c[name])) for name in COLUMNS[2:8]},
            "trades": [bar.c.trades],
            "buy_volume": quoted(decimal_text(bar.c.buy_volume)),
            "buy_quote_volume": quoted(decimal_text(bar.c.buy_quote_volume)),
            "first_trade_id": [bar.c.first_trade_id],
            "last_trade_id": [bar.c.last_trade_id],
            "closed": [cast(bar.c.time + span(seconds) <= now, Text)],
        }
    )


def span(seconds: Column) -> Column:
    """So many seconds as an interval."""
    return seconds * literal_column("INTERVAL '1 second'", Span)
