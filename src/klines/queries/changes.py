"""What came to tokens after a place in their feeds: trades from the tape, and bars that they changed or that ended.

One statement, hence one moment: a bar holds exactly the trades up to the tape's end in the same answer, unless that
answer is a page that stops short of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from klines.cursor import Place, Stream
from klines.interval import Width
from klines.queries.direct import fetched
from klines.queries.klines import origin, page
from klines.queries.turn import NEWEST, SHOWN, statement
from klines.queries.window import Window
from klines.timestamp import to_datetime


class Moment(NamedTuple):
    """When a bar has ended: by `certain_ms` in any case, and up to `now_ms` if a trade of a later bar was committed."""

    certain_ms: int
    now_ms: int


class Wanted(NamedTuple):
    """What comes after a place in a token's feed, for some of its streams, and which of their bars have ended."""

    token_id: int
    streams: Sequence[Stream]
    place: Place
    moment: Moment


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
    """What came to a feed that is `newest` trades long now: a page of its tape, bars ascending by open time.

    Bars that end by `moment_ms` have ended.
    """

    newest: int
    moment_ms: int
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


async def changes(connection: AsyncConnection, wanted: Sequence[Wanted], show: Shown | None = None) -> Answer:
    """At most `turn.PAGE_TRADES` trades of each feed, the bars touched by them, and those that ended.

    Of the latter the oldest `turn.PAGE_BARS` of each stream, and any that were touched.
    """
    values = _values(wanted)
    asked = statement(Width(show.stream.seconds) if show else None, made="made_number" in values)
    rows = await fetched(connection, asked, values | _shown_values(show))
    found = [Changes(0, 0, [], []) for _ in wanted]
    shown = ""
    for number, seconds, place, trades_, json in rows:
        if number == SHOWN:
            shown = json or ""
        elif seconds == NEWEST:
            found[number] = found[number]._replace(newest=place, moment_ms=int(json))
        elif not seconds:
            found[number].taped.append(Taped(place, trades_, json or ""))
        else:
            stream = Stream(wanted[number].token_id, seconds)
            text = json or await _retired(connection, stream, place, found[number].moment_ms)
            found[number].changed.append(Changed(stream, place, text))
    return Answer(found, shown)


async def _retired(connection: AsyncConnection, stream: Stream, open_ms: int, moment_ms: int) -> str:
    # A bar that a late trade brought back may have retired again before it was read.
    window = Window(1, open_ms * 1000, open_ms * 1000 + 1)
    found = await page(connection, stream.token_id, Width(stream.seconds), window, _moment(moment_ms))
    return found.json


def _values(wanted: Sequence[Wanted]) -> dict[str, object]:
    bars = [(number, stream, feed) for number, feed in enumerate(wanted) for stream in feed.streams if stream.seconds]
    made = [one for one in bars if Width(one[1].seconds).parts > 1]
    stored = [one for one in bars if Width(one[1].seconds).parts == 1] if made else bars
    values = _feed_values(wanted) | _stream_values("streams", stored)
    if made:
        widths = [Width(stream.seconds) for _, stream, _ in made]
        values |= _stream_values("made", made) | {
            "made_source": [width.source.seconds for width in widths],
            "made_origin": [_moment(width.origin_ms) for width in widths],
        }
    return values


def _feed_values(wanted: Sequence[Wanted]) -> dict[str, object]:
    return {
        "wanted_number": list(range(len(wanted))),
        "wanted_token_id": [feed.token_id for feed in wanted],
        "wanted_after": [feed.place.sequence for feed in wanted],
        "wanted_certain": [_moment(feed.moment.certain_ms) for feed in wanted],
        "wanted_now": [_moment(feed.moment.now_ms) for feed in wanted],
        "wanted_told": [any(not stream.seconds for stream in feed.streams) for feed in wanted],
    }


def _stream_values(name: str, bars: Sequence[tuple[int, Stream, Wanted]]) -> dict[str, object]:
    return {
        f"{name}_number": [number for number, _, _ in bars],
        f"{name}_token_id": [stream.token_id for _, stream, _ in bars],
        f"{name}_seconds": [stream.seconds for _, stream, _ in bars],
        f"{name}_since": [_moment(feed.place.moment_ms) for _, _, feed in bars],
        f"{name}_ahead": [feed.place.ahead for _, _, feed in bars],
    }


def _shown_values(show: Shown | None) -> dict[str, object]:
    if show is None:
        return {}
    parameters = Window(show.limit).values(show.stream.token_id) | origin(Width(show.stream.seconds))
    return {"now": _moment(show.moment_ms)} | parameters


def _moment(moment_ms: int) -> datetime:
    return to_datetime(moment_ms * 1000)
