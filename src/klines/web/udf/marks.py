"""`/udf/marks` and `/udf/timescale_marks`: events of a token, on its bars and under them.

The first event is the token's first trade, as far as it is stored. The others are what the platform put into the
token's `metadata` (`PUT /api/v1/tokens/{token_symbol}`) as an array `marks` of objects::

    {"time": 1700000000000, "text": "migrated to the AMM", "label": "M", "color": "green"}

* `time`: epoch milliseconds, 2009 to 2200
* `text`: 1 to 256 characters, shown when pointed at
* `label`: one or two characters in the mark; the first of `text` if left out
* `color`: `red`, `green`, `blue` (if left out), `yellow`, or `#rrggbb`

An entry that breaks a rule is left out, as are those after the first `MAX_MARKS`. Both addresses answer with an array
of marks, which the adapter takes as well as columns, and have the same events; charts can hide either.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, NamedTuple

import msgspec
from litestar import Response, get
from msgspec import Meta
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.database import reading
from klines.errors import BadRequest
from klines.interval import Interval, Width
from klines.models import Token
from klines.queries import klines
from klines.queries.window import Window
from klines.timestamp import EARLIEST_US, LATEST_US
from klines.web.services import Given, Incoming, Services
from klines.web.udf.answers import answer
from klines.web.udf.history import bars_of
from klines.web.udf.query import LATEST, Query, find_token, read_token
from klines.web.udf.resolution import parse_resolution

MAX_MARKS = 100
MIN_SIZE = 14
SECOND = Width(Interval.S1.seconds)


class Event(msgspec.Struct, frozen=True):
    """An entry of `metadata.marks`."""

    time: Annotated[int, Meta(ge=EARLIEST_US // 1000, lt=LATEST_US // 1000)]
    text: Annotated[str, Meta(min_length=1, max_length=256)]
    label: Annotated[str, Meta(min_length=1, max_length=2)] | None = None
    color: Annotated[str, Meta(pattern=r"^(red|green|blue|yellow|#[0-9A-Fa-f]{6})\Z")] = "blue"


class Mark(NamedTuple):
    """An event with a name that stays: `first`, or its place in the array."""

    id: str
    event: Event


@get("/marks")
async def get_marks(request: Incoming, services: Given) -> Response[bytes]:
    """Events in the bars from `from` to `to`, both open times in epoch seconds."""
    return answer([_on_bar(mark) for mark in await _marks(Query(request), services)])


@get("/timescale_marks")
async def get_timescale_marks(request: Incoming, services: Given) -> Response[bytes]:
    """The same events for the scale of times."""
    return answer([_on_scale(mark) for mark in await _marks(Query(request), services)])


async def _marks(query: Query, services: Services) -> list[Mark]:
    symbol, begin, end = query.required("symbol"), query.seconds("from") or 0, _end(query)
    async with reading(services.engine) as connection:
        token = await read_token(services, connection, symbol)
        marks = [*await _first_trade(services, connection, token), *_told(token)]
    inside = [mark for mark in marks if begin <= mark.event.time // 1000 < end]
    return sorted(inside, key=lambda mark: mark.event.time)


def _end(query: Query) -> int:
    # `to` is the open time of the last bar on the screen: what happened inside that bar is to be seen too.
    last = query.seconds("to")
    try:
        width = parse_resolution(query.text("resolution")).seconds
    except BadRequest:
        width = 1
    return (LATEST if last is None else last) + width


async def _first_trade(services: Services, connection: AsyncConnection, token: Token) -> list[Mark]:
    _, token_id = await find_token(services, connection, token.symbol)
    page = await klines.page(connection, token_id, SECOND, Window(1, from_us=EARLIEST_US), services.now())
    return [
        Mark("first", Event(bar.open_time, f"first trade, at {bar.open}", "1", "green")) for bar in bars_of(page.json)
    ]


def _told(token: Token) -> Iterator[Mark]:
    entries = token.metadata.get("marks")
    for place, entry in enumerate(entries[:MAX_MARKS] if isinstance(entries, list) else ()):
        try:
            yield Mark(f"mark-{place}", msgspec.convert(entry, Event))
        except msgspec.ValidationError:
            continue


def _on_bar(mark: Mark) -> dict[str, Any]:
    event = mark.event
    color: Any = event.color
    return {
        "id": mark.id,
        "time": event.time // 1000,
        "color": {"border": color, "background": color} if color.startswith("#") else color,
        "text": event.text,
        "label": event.label or event.text[0],
        "labelFontColor": "black" if color == "yellow" else "white",
        "minSize": MIN_SIZE,
    }


def _on_scale(mark: Mark) -> dict[str, Any]:
    event = mark.event
    return {
        "id": mark.id,
        "time": event.time // 1000,
        "color": event.color,
        "label": event.label or event.text[0],
        "tooltip": [event.text],
    }
