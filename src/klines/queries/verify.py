"""Recomputes bars from the raw trades and compares: what `klines verify` and the health of a bar rest on.

The recomputation is one plain GROUP BY over `trades`; it shares no code with the trigger or the aggregates.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, column, func, literal, literal_column, select, table, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.interval import Interval
from klines.tables import klines

VALUES = tuple(name.name for name in klines[Interval.S1].columns if name.name not in {"token_id", "time"})
MAX_SHOWN = 20


class Difference(NamedTuple):
    """A bucket whose stored bar is not the fold of its trades; None where one of the two has no bar."""

    time: datetime
    stored: tuple[Any, ...] | None
    folded: tuple[Any, ...] | None


class Verdict(NamedTuple):
    """How many buckets were compared, how many differed, and the first `MAX_SHOWN` of those."""

    compared: int
    different: int
    shown: list[Difference]


async def compare(connection: AsyncConnection, token_id: int, interval: Interval) -> Verdict:
    """Compare every bar of a token from the first whole bucket whose raw trades are all retained."""
    both = _both(token_id, interval).subquery("both")
    stored = [both.c[f"stored_{name}"] for name in VALUES]
    folded = [both.c[f"folded_{name}"] for name in VALUES]
    differs: ColumnElement[bool] = tuple_(*stored).is_distinct_from(tuple_(*folded))
    counts = select(func.count(), func.count().filter(differs)).select_from(both)
    compared, different = (await connection.execute(counts)).one()
    shown = []
    if different:
        listing = select(both.c.time, *stored, *folded).where(differs).order_by(both.c.time).limit(MAX_SHOWN)
        shown = [_difference(tuple(row)) for row in await connection.execute(listing)]
    return Verdict(compared, different, shown)


def _both(token_id: int, interval: Interval) -> Select[Any]:
    bars = klines[interval]
    retention = table("retention", column("floor"), schema="klines_internal")
    width: ColumnElement[int] = literal_column(str(interval.seconds))
    # A bucket that the retention cuts through has lost some of its trades: it starts after the floor.
    floor = select(
        func.klines_internal.open_time(width, retention.c.floor) + func.make_interval(0, 0, 0, 0, 0, 0, width)
    )
    since = func.coalesce(floor.where(func.isfinite(retention.c.floor)).scalar_subquery(), func.to_timestamp(0))
    fold = (
        func.klines_internal.fold_of_trades_v1(token_id, interval.seconds, since, literal_column("'infinity'"))
        .table_valued("time", *VALUES)
        .alias("folded")
    )
    side = select(bars).where(bars.c.token_id == literal(token_id), bars.c.time >= since).subquery("stored")
    return select(
        func.coalesce(side.c.time, fold.c.time).label("time"),
        *(side.c[name].label(f"stored_{name}") for name in VALUES),
        *(fold.c[name].label(f"folded_{name}") for name in VALUES),
    ).select_from(side.outerjoin(fold, side.c.time == fold.c.time, full=True))


def _difference(row: tuple[Any, ...]) -> Difference:
    stored, folded = row[1 : 1 + len(VALUES)], row[1 + len(VALUES) :]
    return Difference(row[0], None if stored[0] is None else stored, None if folded[0] is None else folded)
