"""Bars of one token and width: as one JSON text, or row by row for filling the gaps between them.

Bars of a width that is not stored are made of the largest stored ones that divide it, in the same statement.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Integer,
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
from klines.interval import Interval, Width
from klines.queries.direct import fetched
from klines.queries.versions import Version, version_of
from klines.queries.window import BEFORE, MOMENT, Shape, Window
from klines.queries.wire import Column, decimal_text, epoch_ms, json_array, json_object, quoted_decimal
from klines.tables import klines
from klines.timestamp import LATEST_US, to_datetime

COLUMNS = tuple(column.name for column in klines[Interval.S1].columns)
# What a bar has of the first or (True) the last of the bars that it is made of.
ENDS = {"open": False, "close": True, "first_trade_id": False, "last_trade_id": True}


class Page(NamedTuple):
    """Bars as the inside of a JSON array, ascending, and the open time of the last one (None: no bars).

    `version` is that of the token at the moment they were read, or before.
    """

    json: str
    last_open_ms: int | None
    version: Version


async def page(connection: AsyncConnection, token_id: int, width: Width, window: Window, now: datetime) -> Page:
    """The bars of a window in one text."""
    values = _aligned(window, width).values(token_id) | {"now": now} | origin(width)
    ((text, last_open_ms, version),) = await fetched(connection, statement(width, window.shape), values)
    return Page(text or "", last_open_ms, version)


async def rows(connection: AsyncConnection, token_id: int, width: Width, window: Window, now: datetime) -> list[Bar]:
    """The bars of a window one by one, ascending; if it has a beginning, the last bar before it comes first."""
    values = _aligned(window, width).values(token_id) | {"now": now} | origin(width)
    return [Bar(*row) for row in await connection.execute(_rows(width, window.shape), values)]


def latest(source: Interval, made: bool) -> Select[Any]:
    """The statement behind a page of the latest bars, stored or made of stored ones.

    Its parameters are named as in `Window`, `now`, and those of `origin`.
    """
    return _page_of(source, made, Window(1).shape)


def statement(width: Width, shape: Shape) -> Select[Any]:
    """The statement of a page, whose parameters are those of `latest` and of the window."""
    return _page_of(width.source, width.parts > 1, shape)


def origin(width: Width) -> dict[str, object]:
    """The parameters of a statement on bars that are made of stored ones; none on stored ones."""
    if width.parts == 1:
        return {}
    return {
        "origin": to_datetime(width.origin_ms * 1000),
        "width": timedelta(seconds=width.seconds),
        "parts": width.parts,
    }


def _aligned(window: Window, width: Width) -> Window:
    """The same bars with both ends at open times, so that none is made of a part of its own parts."""
    if width.parts == 1:
        return window
    return window._replace(from_us=_ceil(width, window.from_us), to_us=_ceil(width, window.to_us))


def _ceil(width: Width, time_us: int | None) -> int | None:
    if time_us is None:
        return None
    return min(width.ceil(-(-time_us // 1000)) * 1000, LATEST_US)


# Built once per width and shape: building one takes longer than running it. All that are not stored share their
# source's, so there are few.
def _rows(width: Width, shape: Shape) -> Select[Any]:
    return _rows_of(width.source, width.parts > 1, shape)


@cache
def _page_of(source: Interval, made: bool, shape: Shape) -> Select[Any]:
    bars = _bars(source, made, shape)
    version = version_of(bindparam("token", type_=Integer))
    return select(json_array(_json(bars, source, made), bars.c.time), epoch_ms(func.max(bars.c.time)), version)


@cache
def _rows_of(source: Interval, made: bool, shape: Shape) -> Select[Any]:
    bars = _bars(source, made, shape)
    if shape.begins:
        # In one statement with the page, so that both are of one moment.
        bars = union_all(select(bars), select(_bars(source, made, BEFORE))).subquery("with_previous")
    return select(epoch_ms(bars.c.time), decimal_text(bars.c.close), _json(bars, source, made)).order_by(bars.c.time)


def _bars(source: Interval, made: bool, shape: Shape) -> Subquery:
    # The limit stands inside both sides, so that neither is read further than the page needs.
    parts = bindparam("parts", type_=Integer) if made else None
    live = table("live_klines", *map(column, COLUMNS), column("seconds"), schema="klines_internal")
    retired = table(f"retired_{source.value}", *map(column, COLUMNS), schema="klines_internal")
    young = _side(live, shape, parts).where(live.c.seconds == literal_column(str(source.seconds))).subquery("young")
    old = _side(retired, shape, parts).subquery("old")
    both = select(young).union_all(select(old)).subquery("both")
    stored = shape.page(select(both), both.c.time, parts=parts)
    if not made:
        return stored.subquery("bars")
    # That many stored bars hold the bars asked for whole; the one that may be cut is beyond the page.
    whole = merged(stored.subquery("stored")).subquery("merged")
    return shape.page(select(whole), whole.c.time).subquery("bars")


def _side(side: Any, shape: Shape, parts: Column | None) -> Select[Any]:
    return shape.page(shape.restrict(select(*(side.c[name] for name in COLUMNS)), side), side.c.time, parts=parts)


def merged(part: Any) -> Select[Any]:
    """Bars made of finer ones, which are unique by their time in a token: so first and last of them are exact."""
    opened = func.date_bin(bindparam("width", type_=Span), part.c.time, bindparam("origin", type_=MOMENT), type_=MOMENT)
    group = select(part.c.token_id, opened.label("time"), *aggregates(part)).group_by(part.c.token_id, opened)
    return whole(group.subquery("grouped"))


def whole(group: Any) -> Select[Any]:
    """The bars of grouped finer ones, their columns in the usual order."""
    first = literal_column("1", Integer)
    return select(*(group.c[name][first].label(name) if name in ENDS else group.c[name] for name in COLUMNS))


def aggregates(part: Any) -> list[Column]:
    """What a bar holds besides token and time; of `ENDS` the values in their order, for `whole`."""

    def ends(name: str) -> Column:
        order = part.c.time.desc() if ENDS[name] else part.c.time
        return func.array_agg(part.c[name], type_=ARRAY(part.c[name].type)).aggregate_order_by(order).label(name)

    sums = ("volume", "quote_volume", "buy_volume", "buy_quote_volume")
    return [
        *(ends(name) for name in ENDS),
        func.max(part.c.high).label("high"),
        func.min(part.c.low).label("low"),
        *(func.sum(part.c[name]).label(name) for name in sums),
        cast(func.sum(part.c.trades), BigInteger).label("trades"),
    ]


def _json(bar: Subquery, source: Interval, made: bool) -> Column:
    seconds: Column = literal_column(str(source.seconds), BigInteger)
    if made:
        seconds = seconds * bindparam("parts", type_=BigInteger)
    return bar_json(bar, seconds, bindparam("now", type_=MOMENT))


def bar_json(bar: Any, seconds: Column, now: Column) -> Column:
    """A bar of `seconds` as REST and the streams show it; it is closed if it ended by `now`."""
    opened = epoch_ms(bar.c.time)
    return json_object(
        {
            "open_time": [opened],
            "close_time": [opened + seconds * literal_column("1000") - literal_column("1")],
            **{name: quoted_decimal(bar.c[name]) for name in COLUMNS[2:8]},
            "trades": [bar.c.trades],
            "buy_volume": quoted_decimal(bar.c.buy_volume),
            "buy_quote_volume": quoted_decimal(bar.c.buy_quote_volume),
            "first_trade_id": [bar.c.first_trade_id],
            "last_trade_id": [bar.c.last_trade_id],
            "closed": [cast(bar.c.time + span(seconds) <= now, Text)],
        }
    )


def span(seconds: Column) -> Column:
    """So many seconds as an interval."""
    return seconds * literal_column("INTERVAL '1 second'", Span)
