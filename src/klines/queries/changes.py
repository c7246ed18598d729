"""What came to tokens after a place in their feeds: trades from the tape, and bars that they changed or that ended.

One statement, hence one moment: a bar holds exactly the trades up to the tape's end in the same answer, unless that
answer is a page that stops short of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

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
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cursor import Place, Stream
from klines.interval import Interval
from klines.queries.feeds import feeds, tape
from klines.queries.klines import COLUMNS, bar_json, latest, page, span
from klines.queries.trades import trade_json
from klines.queries.window import MOMENT, Window
from klines.queries.wire import Column, epoch_ms, json_array
from klines.tables import trades
from klines.timestamp import to_datetime

# What is read at once: of a feed, and of the bars of a stream that ended.
PAGE_TRADES = 512
PAGE_BARS = 256
TRADE = ("trade_id", "time", "price", "amount", "side")

# What stands in place of a width in the row that tells the length of a feed, and of a number in that of bars to show.
NEWEST = -1
SHOWN = -1

_MOMENT = bindparam("moment", type_=MOMENT)
_INTERVALS = {interval.seconds: interval for interval in Interval}

live = table("live_klines", column("seconds", Integer), *(column(name) for name in COLUMNS), schema="klines_internal")


class Wanted(NamedTuple):
    """What comes after a place in a token's feed, for some of its streams."""

    token_id: int
    streams: Sequence[Stream]
    place: Place


class Taped(NamedTuple):
    """So many trades that end at `sequence`; `json` is the inside of an array, empty if no stream wants it."""

    sequence: int
    trades: int
    json: str


class Changed(NamedTuple):
    """A bar as it is now, as JSON."""

    stream: Stream
    open_ms: int
    json: str

    @property
    def end_ms(self) -> int:
        """When its interval ends."""
        return self.open_ms + self.stream.seconds * 1000


class Changes(NamedTuple):
    """What came to a feed that is `newest` trades long now: a page of its tape, bars ascending by open time."""

    newest: int
    taped: list[Taped]
    changed: list[Changed]


class Shown(NamedTuple):
    """The latest `limit` bars of a stream, closed if they ended by `moment_ms`."""

    stream: Stream
    limit: int
    moment_ms: int


class Answer(NamedTuple):
    """The changes of each feed in the order in which they were wanted, and the bars to show, inside of a JSON array."""

    feeds: list[Changes]
    shown: str


async def changes(
    connection: AsyncConnection, wanted: Sequence[Wanted], moment_ms: int, show: Shown | None = None
) -> Answer:
    """At most `PAGE_TRADES` trades of each feed, the bars touched by them, and those that ended by `moment_ms`.

    Of the latter the oldest `PAGE_BARS` of each stream, and any that were touched.
    """
    statement = _changes(_INTERVALS[show.stream.seconds] if show else None)
    rows = await connection.execute(statement, _values(wanted, moment_ms) | _shown_values(show))
    found = [Changes(0, [], []) for _ in wanted]
    shown = ""
    for number, seconds, place, trades_, json in rows:
        if number == SHOWN:
            shown = json or ""
        elif seconds == NEWEST:
            found[number] = found[number]._replace(newest=place)
        elif not seconds:
            found[number].taped.append(Taped(place, trades_, json or ""))
        else:
            stream = Stream(wanted[number].token_id, seconds)
            text = json or await _retired(connection, stream, place, moment_ms)
            found[number].changed.append(Changed(stream, place, text))
    return Answer(found, shown)


async def _retired(connection: AsyncConnection, stream: Stream, open_ms: int, moment_ms: int) -> str:
    # A bar that a late trade brought back may have retired again before it was read.
    window = Window(1, open_ms * 1000, open_ms * 1000 + 1)
    found = await page(connection, stream.token_id, _INTERVALS[stream.seconds], window, _moment(moment_ms))
    return found.json


def _values(wanted: Sequence[Wanted], moment_ms: int) -> dict[str, object]:
    bars = [(number, stream, feed) for number, feed in enumerate(wanted) for stream in feed.streams if stream.seconds]
    return {
        "wanted_number": list(range(len(wanted))),
        "wanted_token_id": [feed.token_id for feed in wanted],
        "wanted_after": [feed.place.sequence for feed in wanted],
        "wanted_told": [any(not stream.seconds for stream in feed.streams) for feed in wanted],
        "streams_number": [number for number, _, _ in bars],
        "streams_token_id": [stream.token_id for _, stream, _ in bars],
        "streams_seconds": [stream.seconds for _, stream, _ in bars],
        "streams_since": [_moment(feed.place.moment_ms) for _, _, feed in bars],
        "streams_ahead": [feed.place.ahead for _, _, feed in bars],
        "moment": _moment(moment_ms),
    }


def _shown_values(show: Shown | None) -> dict[str, object]:
    if show is None:
        return {}
    return {"now": _moment(show.moment_ms)} | Window(show.limit).values(show.stream.token_id)


def _moment(moment_ms: int) -> datetime:
    return to_datetime(moment_ms * 1000)


@cache
def _changes(shown: Interval | None) -> Select[Any]:
    wanted = _rows("wanted", number=Integer, token_id=Integer, after=BigInteger, told=Boolean)
    read = _read(wanted)
    newest = _row(wanted.c.number, _number(NEWEST), func.coalesce(feeds.c.sequence, 0)).join_from(
        wanted, feeds, feeds.c.token_id == wanted.c.token_id, isouter=True
    )
    parts = [_told(read), _bars(read), newest]
    if shown:
        parts.append(_row(_number(SHOWN), _number(0), _number(0), json=latest(shown).subquery("shown").c[0]))
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


def _bars(read: Any) -> Any:
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
            live.c.time <= _MOMENT - span(streams.c.seconds),
        )
        .order_by(live.c.time)
        .limit(literal_column(str(PAGE_BARS)))
        .lateral("over")
    )
    ended = select(*stream, over.c.time).join_from(streams, over, true())
    bars = touched.union(ended).subquery("bars")
    key = (live.c.token_id == bars.c.token_id) & (live.c.seconds == bars.c.seconds) & (live.c.time == bars.c.time)
    text = case((live.c.token_id.is_not(None), bar_json(live, bars.c.seconds, _MOMENT)))
    row = _row(bars.c.number, bars.c.seconds, epoch_ms(bars.c.time), json=text)
    return row.join_from(bars, live, key, isouter=True)


def _read(wanted: Any) -> Any:
    # A row of the tape is shorter than a page, so that every page gets on.
    row = (
        select(tape)
        .where(
            tape.c.token_id == wanted.c.token_id,
            tape.c.sequence > wanted.c.after,
            tape.c.sequence <= wanted.c.after + literal_column(str(PAGE_TRADES)),
        )
        .lateral("row")
    )
    return select(row, wanted.c.number, wanted.c.told).join_from(wanted, row, true()).cte("read")


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
