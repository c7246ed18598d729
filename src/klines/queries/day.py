"""The last 24 hours of tokens: `[start, now]` with `start` cut to the minute, exact.

They are put together from the coarsest bars that fit: minutes up to the next quarter of an hour, quarters up to the
next four hours, and four hours from there, at most 36 bars a token. The first price is that of the first minute. All of
these are live bars: minutes stay live for four days and coarser ones for longer (`klines_internal.levels`), so the
retired ones need not be searched. A token without a trade in them is not looked for at all.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    DateTime,
    Integer,
    Numeric,
    Select,
    Subquery,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    union_all,
)

from klines.interval import Interval

MOMENT = DateTime(timezone=True)
# By width, finest first, the parameter that says where its bars begin; they end where the next begin, the last never.
LADDER = {Interval.M1: "start", Interval.M15: "quarter", Interval.H4: "four_hours"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

live = table(
    "live_klines",
    *(column(name, Integer) for name in ("token_id", "seconds")),
    column("time", MOMENT),
    *(column(name, Numeric) for name in ("open", "high", "low", "close", "volume", "quote_volume")),
    *(column(name, BigInteger) for name in ("trades", "first_trade_id")),
    schema="klines_internal",
)


def day_begins(now: datetime) -> datetime:
    """Where the 24 hours begin."""
    return now.replace(second=0, microsecond=0) - timedelta(days=1)


def day_window(now: datetime) -> dict[str, datetime]:
    """The parameters of `first` and `sums`: where the bars of each width begin."""
    begins = {"start": day_begins(now)}
    for finer, coarser in itertools.pairwise(LADDER):
        begins[LADDER[coarser]] = _ceil(begins[LADDER[finer]], timedelta(seconds=coarser.seconds))
    return begins


def first(token: Subquery) -> Any:
    """Laterally the first minute of each `token` (with `token_id` and `last_time`); no row without a trade."""
    opening = _bars(token, Interval.M1, None).with_only_columns(live.c.open, live.c.first_trade_id)
    return opening.order_by(live.c.time).limit(literal_column("1")).lateral("first")


def sums(token: Subquery) -> Any:
    """Laterally what the 24 hours of each such `token` sum up to; nulls without a trade."""
    # A branch for each width, as plans for any parameters then search by the whole key.
    columns = ("high", "low", "volume", "quote_volume", "trades")
    ends = [*list(LADDER.values())[1:], None]
    bars = union_all(
        *(
            _bars(token, width, end).with_only_columns(*(live.c[name] for name in columns))
            for width, end in zip(LADDER, ends, strict=True)
        )
    ).subquery("bars")
    return select(
        func.max(bars.c.high).label("high"),
        func.min(bars.c.low).label("low"),
        func.sum(bars.c.volume).label("volume"),
        func.sum(bars.c.quote_volume).label("quote_volume"),
        cast(func.sum(bars.c.trades), BigInteger).label("trades"),
    ).lateral("sums")


def _bars(token: Subquery, width: Interval, end: str | None) -> Select[Any]:
    """The live bars of one width from where they begin, up to where the next wider ones do."""
    bars = (
        select(live)
        .where(live.c.token_id == token.c.token_id, live.c.seconds == literal_column(str(width.seconds)))
        .where(live.c.time >= _moment(LADDER[width]), token.c.last_time >= _moment("start"))
    )
    return (bars if end is None else bars.where(live.c.time < _moment(end))).correlate(token)


def _moment(name: str) -> Any:
    return bindparam(name, type_=MOMENT)


def _ceil(moment: datetime, width: timedelta) -> datetime:
    return moment + (EPOCH - moment) % width
