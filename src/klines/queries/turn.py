"""The statement that reads what came to feeds: see `klines.queries.changes` for what goes in and what comes out.

Its rows are (number of the feed, seconds, place, trades, json). With 0 seconds they are trades of the tape up to
`place`; with `NEWEST` the length of the feed and, as json, the moment; else a bar that opens at `place`. Number `SHOWN`
are the bars to show.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Integer,
    Select,
    Text,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    true,
    union_all,
)

from klines.interval import Interval, Width
from klines.queries.feeds import feeds, tape
from klines.queries.klines import COLUMNS, aggregates, bar_json, latest, span, whole
from klines.queries.trades import trade_json
from klines.queries.window import MOMENT
from klines.queries.wire import Column, epoch_ms, json_array
from klines.tables import trades

# What is read at once: of a feed, and of the bars of a stream that ended.
PAGE_TRADES = 512
PAGE_BARS = 256
TRADE = ("trade_id", "time", "price", "amount", "side")

# What stands in place of a width in the row that tells the length of a feed, and of a number in that of bars to show.
NEWEST = -1
SHOWN = -1

levels = table("levels", column("seconds", Integer), column("seam", MOMENT), schema="klines_internal")

live = table("live_klines", column("seconds", Integer), *(column(name) for name in COLUMNS), schema="klines_internal")


def statement(shown: Width | None, made: bool) -> Select[Any]:
    """Its parameters are arrays side by side, named `wanted_…` per feed and `streams_…` per stream of stored bars.

    With `made` also `made_…` per stream of bars that are made of stored ones.
    """
    return _statement(shown and shown.source, shown is not None and shown.parts > 1, made)


@cache
def _statement(shown: Interval | None, shown_made: bool, made: bool) -> Select[Any]:
    feed = _feed()
    read = _read(feed)
    newest = _row(feed.c.number, _number(NEWEST), feed.c.newest, json=epoch_ms(feed.c.moment))
    parts = [_told(read), _bars(feed, read), newest]
    if made:
        parts.append(_made(feed, read))
    if shown:
        parts.append(
            _row(_number(SHOWN), _number(0), _number(0), json=latest(shown, shown_made).subquery("shown").c[0])
        )
    rows = union_all(*parts).subquery("changes")
    return select(rows).order_by(rows.c.number, rows.c.seconds, rows.c.place)


def _row(number: Column, seconds: Column, place: Column, trades: Column | None = None, json: Any = None) -> Any:
    return select(
        number.label("number"),
        seconds.label("seconds"),
        cast(place, BigInteger).label("place"),
        (_number(0) if trades is None else trades).label("trades"),
        cast(json, Text).label("json"),
    )


def _number(value: int) -> Column:
    return literal_column(str(value), Integer)


def _feed() -> Any:
    wanted = _rows(
        "wanted", number=Integer, token_id=Integer, after=BigInteger, told=Boolean, certain=MOMENT, now=MOMENT
    )
    moment = func.greatest(wanted.c.certain, func.least(wanted.c.now, feeds.c.last_time))
    columns = (wanted.c.number, wanted.c.token_id, wanted.c.after, wanted.c.told)
    newest = func.coalesce(feeds.c.sequence, 0).label("newest")
    return (
        select(*columns, newest, moment.label("moment"))
        .join_from(wanted, feeds, feeds.c.token_id == wanted.c.token_id, isouter=True)
        .cte("feed")
    )


def _bars(feed: Any, read: Any) -> Any:
    streams = _rows("streams", number=Integer, token_id=Integer, seconds=Integer, since=MOMENT, ahead=BigInteger)
    at = func.unnest(read.c.times).table_valued(column("time", MOMENT)).render_derived("at")
    opened = func.klines_internal.open_time(streams.c.seconds, at.c.time, type_=MOMENT)
    # Told already, by what the place says of the bars that had ended.
    known = (opened + span(streams.c.seconds) <= streams.c.since) & (read.c.sequence <= streams.c.ahead)
    stream = (streams.c.number, streams.c.token_id, streams.c.seconds)
    touched = (
        select(*stream, opened.label("time"))
        .join_from(read, streams, streams.c.number == read.c.number)
        .join(at, true())
        .where(~known)
    )
    over = (
        select(live.c.time)
        .where(
            live.c.token_id == streams.c.token_id,
            live.c.seconds == streams.c.seconds,
            live.c.time > streams.c.since - span(streams.c.seconds),
            live.c.time <= feed.c.moment - span(streams.c.seconds),
        )
        .order_by(live.c.time)
        .limit(literal_column(str(PAGE_BARS)))
        .lateral("over")
    )
    ended = select(*stream, over.c.time).join_from(streams, feed, feed.c.number == streams.c.number).join(over, true())
    bars = touched.union(ended).subquery("bars")
    key = (live.c.token_id == bars.c.token_id) & (live.c.seconds == bars.c.seconds) & (live.c.time == bars.c.time)
    text = case((live.c.token_id.is_not(None), bar_json(live, bars.c.seconds, feed.c.moment)))
    row = _row(bars.c.number, bars.c.seconds, epoch_ms(bars.c.time), json=text)
    return row.join_from(bars, feed, feed.c.number == bars.c.number).join(live, key, isouter=True)


def _made(feed: Any, read: Any) -> Any:
    """As `_bars`, for bars made of the stored ones of `source` seconds; no text where some of those have retired."""
    made = _rows(
        "made",
        number=Integer,
        token_id=Integer,
        seconds=Integer,
        source=Integer,
        origin=MOMENT,
        since=MOMENT,
        ahead=BigInteger,
    )

    def opened(time: Column) -> Column:
        return func.date_bin(span(made.c.seconds), time, made.c.origin, type_=MOMENT)

    at = func.unnest(read.c.times).table_valued(column("time", MOMENT)).render_derived("at")
    known = (opened(at.c.time) + span(made.c.seconds) <= made.c.since) & (read.c.sequence <= made.c.ahead)
    stream = (made.c.number, made.c.token_id, made.c.seconds, made.c.source)
    touched = (
        select(*stream, opened(at.c.time).label("time"))
        .join_from(read, made, made.c.number == read.c.number)
        .join(at, true())
        .where(~known)
    )
    over = (
        select(opened(live.c.time).label("time"))
        .where(
            live.c.token_id == made.c.token_id,
            live.c.seconds == made.c.source,
            # Nothing, while both lie in one bucket.
            live.c.time >= opened(made.c.since),
            live.c.time < opened(feed.c.moment),
        )
        .group_by(opened(live.c.time))
        .order_by(opened(live.c.time))
        .limit(literal_column(str(PAGE_BARS)))
        .lateral("over")
    )
    ended = select(*stream, over.c.time).join_from(made, feed, feed.c.number == made.c.number).join(over, true())
    bars = touched.union(ended).subquery("made_bars")
    merged = _merged(bars)
    row = _row(bars.c.number, bars.c.seconds, epoch_ms(bars.c.time), json=_text(bars, merged, feed))
    return row.join_from(bars, feed, feed.c.number == bars.c.number).join(merged, true())


def _merged(bars: Any) -> Any:
    grouped = (
        select(bars.c.token_id, bars.c.time, *aggregates(live))
        .where(
            live.c.token_id == bars.c.token_id,
            live.c.seconds == bars.c.source,
            live.c.time >= bars.c.time,
            live.c.time < bars.c.time + span(bars.c.seconds),
        )
        .correlate(bars)
        .subquery("grouped")
    )
    return whole(grouped).lateral("merged")


def _text(bars: Any, merged: Any, feed: Any) -> Column:
    seam = select(levels.c.seam).where(levels.c.seconds == bars.c.source).scalar_subquery()
    complete = merged.c.trades.is_not(None) & (bars.c.time >= seam)
    return case((complete, bar_json(merged, bars.c.seconds, feed.c.moment)))


def _read(feed: Any) -> Any:
    # A row of the tape is shorter than a page, so that every page gets on.
    row = (
        select(tape)
        .where(
            tape.c.token_id == feed.c.token_id,
            tape.c.sequence > feed.c.after,
            tape.c.sequence <= feed.c.after + literal_column(str(PAGE_TRADES)),
        )
        .lateral("row")
    )
    return select(row, feed.c.number, feed.c.told).join_from(feed, row, true()).cte("read")


def _told(read: Any) -> Any:
    columns = (read.c.trade_ids, read.c.times, read.c.prices, read.c.amounts, read.c.sides)
    each = (
        func.unnest(*columns)
        .table_valued(*(column(name, trades.c[name].type) for name in TRADE), with_ordinality="place")
        .render_derived("each")
    )
    json = select(json_array(trade_json(each), each.c.place)).select_from(each).scalar_subquery()
    trades_ = func.cardinality(read.c.trade_ids)
    return _row(read.c.number, _number(0), read.c.sequence, trades_, case((read.c.told, json)))


def _rows(name: str, **columns: Any) -> Any:
    """Arrays side by side as a table; each is bound under the name of its column and of the table."""
    arrays = [bindparam(f"{name}_{column_name}", type_=ARRAY(kind)) for column_name, kind in columns.items()]
    return (
        func.unnest(*arrays)
        .table_valued(*(column(column_name, kind) for column_name, kind in columns.items()))
        .render_derived(name)
    )
