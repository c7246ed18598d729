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
    bindparam,
    case,
    cast,
    column,
    func,
    literal,
    literal_column,
    null,
    select,
    table,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cursor import Stream
from klines.interval import Interval
from klines.queries.feeds import tape
from klines.queries.klines import COLUMNS, bar_json, page, span
from klines.queries.trades import trade_json
from klines.queries.window import MOMENT, Window
from klines.queries.wire import epoch_ms, json_array
from klines.tables import trades

# What one row of the tape holds at the most, and what is read of a feed at once.
ROW_TRADES = 256
PAGE_TRADES = 512
UNBOUNDED = 2**62
TRADE = ("trade_id", "time", "price", "amount", "side")

_NOW = bindparam("now", type_=MOMENT)

live = table("live_klines", column("seconds", Integer), *(column(name) for name in COLUMNS), schema="klines_internal")


class Wanted(NamedTuple):
    """A token's feed after a place, as a cursor names it, and which streams of it.

    The answer is a page: it ends at `until`, or before it where more than `PAGE_TRADES` trades lie between.
    """

    streams: Sequence[Stream]
    after: int
    since: datetime
    ahead: int = 0
    until: int = UNBOUNDED

    @property
    def last(self) -> int:
        """Where the page ends at the latest. A row of the tape is shorter, so that every page gets on."""
        return min(self.until, self.after + PAGE_TRADES)


class Taped(NamedTuple):
    """So many trades that end at `sequence` of a feed; `json` is the inside of an array, empty if not wanted."""

    token_id: int
    sequence: int
    trades: int
    json: str


class Changed(NamedTuple):
    """A bar as it is now, as JSON."""

    stream: Stream
    open_ms: int
    json: str


class Changes(NamedTuple):
    """Ascending: per token by sequence, per stream by open time."""

    taped: list[Taped]
    changed: list[Changed]

    def by_token(self) -> dict[int, Changes]:
        """The same for each token that has any."""
        found: dict[int, Changes] = {}
        for row in self.taped:
            found.setdefault(row.token_id, Changes([], [])).taped.append(row)
        for bar in self.changed:
            found.setdefault(bar.stream.token_id, Changes([], [])).changed.append(bar)
        return found


NOTHING = Changes([], [])


async def changes(connection: AsyncConnection, wanted: Sequence[Wanted], moment: datetime) -> Changes:
    """The tape of each feed, the bars that it touched, and the bars that ended by `moment`."""
    rows = await connection.execute(_changes(), _values(wanted, moment))
    found = Changes([], [])
    for token_id, seconds, place, count, json in rows:
        if not seconds:
            found.taped.append(Taped(token_id, place, count, json or ""))
            continue
        stream = Stream(token_id, seconds)
        text = json or await _retired(connection, stream, place, moment)
        found.changed.append(Changed(stream, place, text))
    return found


async def _retired(connection: AsyncConnection, stream: Stream, open_ms: int, moment: datetime) -> str:
    # A bar that a late trade brought back may have retired again before it was read.
    interval = next(interval for interval in Interval if interval.seconds == stream.seconds)
    window = Window(1, open_ms * 1000, open_ms * 1000 + 1)
    return (await page(connection, stream.token_id, interval, window, moment)).json


def _values(wanted: Sequence[Wanted], moment: datetime) -> dict[str, object]:
    bars = [(stream, feed) for feed in wanted for stream in feed.streams if stream.seconds]
    return {
        "wanted_token_id": [feed.streams[0].token_id for feed in wanted],
        "wanted_after": [feed.after for feed in wanted],
        "wanted_until": [feed.last for feed in wanted],
        "wanted_told": [any(not stream.seconds for stream in feed.streams) for feed in wanted],
        "streams_token_id": [stream.token_id for stream, _ in bars],
        "streams_seconds": [stream.seconds for stream, _ in bars],
        "streams_since": [feed.since for _, feed in bars],
        "streams_ahead": [feed.ahead for _, feed in bars],
        "now": moment,
    }


@cache
def _changes() -> Select[Any]:
    read = _read()
    streams = _rows("streams", token_id=Integer, seconds=Integer, since=MOMENT, ahead=BigInteger)
    at = func.unnest(read.c.times).table_valued(column("time", MOMENT)).render_derived("at")
    opened = func.klines_internal.open_time(streams.c.seconds, at.c.time, type_=MOMENT)
    # What a cursor says is told already of the bars that had ended.
    told = (opened + span(streams.c.seconds) <= streams.c.since) & (read.c.sequence <= streams.c.ahead)
    touched = (
        select(streams.c.token_id, streams.c.seconds, opened.label("time"))
        .join_from(read, streams, streams.c.token_id == read.c.token_id)
        .join(at, true())
        .where(~told)
    )
    ended = select(live.c.token_id, live.c.seconds, live.c.time).join_from(
        streams,
        live,
        (live.c.token_id == streams.c.token_id)
        & (live.c.seconds == streams.c.seconds)
        & (live.c.time > streams.c.since - span(streams.c.seconds))
        & (live.c.time <= _NOW - span(streams.c.seconds)),
    )
    bars = touched.union(ended).subquery("bars")
    key = (live.c.token_id == bars.c.token_id) & (live.c.seconds == bars.c.seconds) & (live.c.time == bars.c.time)
    text = case((live.c.token_id.is_not(None), bar_json(live, bars.c.seconds, _NOW)))
    both = _told(read).union_all(
        select(bars.c.token_id, bars.c.seconds, epoch_ms(bars.c.time), literal(0, BigInteger), text).join_from(
            bars, live, key, isouter=True
        )
    )
    place = both.subquery("changes")
    return select(place).order_by(place.c[0], place.c[1], place.c[2])


def _read() -> Any:
    wanted = _rows("wanted", token_id=Integer, after=BigInteger, until=BigInteger, told=Boolean)
    row = (
        select(tape)
        .where(
            tape.c.token_id == wanted.c.token_id,
            tape.c.sequence > wanted.c.after,
            tape.c.sequence <= wanted.c.until,
        )
        .lateral("row")
    )
    return select(row, wanted.c.told).join_from(wanted, row, true()).cte("read").prefix_with("MATERIALIZED")


def _told(read: Any) -> Select[Any]:
    columns = (read.c.trade_ids, read.c.times, read.c.prices, read.c.amounts, read.c.sides)
    each = (
        func.unnest(*columns)
        .table_valued(*(column(name, trades.c[name].type) for name in TRADE), with_ordinality="number")
        .render_derived("each")
    )
    json = select(json_array(trade_json(each), each.c.number)).select_from(each).scalar_subquery()
    count = cast(func.cardinality(read.c.trade_ids), BigInteger)
    return select(
        read.c.token_id.label("token_id"),
        literal_column("0", Integer).label("seconds"),
        read.c.sequence.label("place"),
        count.label("count"),
        case((read.c.told, json), else_=null()).label("json"),
    )


def _rows(name: str, **columns: Any) -> Any:
    """Arrays side by side as a table; each is bound under the name of its column and of the table."""
    arrays = [bindparam(f"{name}_{column_name}", type_=ARRAY(kind)) for column_name, kind in columns.items()]
    return (
        func.unnest(*arrays)
        .table_valued(*(column(column_name, kind) for column_name, kind in columns.items()))
        .render_derived(name)
    )
