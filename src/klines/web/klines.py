"""`GET /api/v1/klines/{token_symbol}`: bars of a range, the open one included."""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from http import HTTPStatus
from typing import NamedTuple

import msgspec
from litestar import get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from litestar.types import Receive, Scope, Send
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.dear import is_dear
from klines.errors import BadRequest
from klines.gaps import FILLS, Fill, filled
from klines.gaps import Request as FillRequest
from klines.interval import Width, parse_interval
from klines.queries import klines
from klines.queries.versions import versions
from klines.queries.window import Window
from klines.timestamp import to_us
from klines.web.admission.limits import page_weight, spend
from klines.web.answers import Answer, Question
from klines.web.parameters import choice, documented, integer, moment, parsed, read, refuse_reversed
from klines.web.schemas import KlinesAnswer
from klines.web.services import Incoming, Services

RULES = (
    parsed("interval", "width of a bar: 1s 1m 5m 15m 1h 4h 1d, or any other from 1s to 1w", "1m", parse_interval),
    integer("limit", "most bars in the answer", default=100, low=1, high=5000),
    moment("from", "first open time, epoch milliseconds or ISO-8601 with an offset"),
    moment("to", "end of the open times, exclusive"),
    choice("fill", "what stands for a bucket without trades", FILLS, "none"),
)

JSON = (b"content-type", b"application/json")


class Query(NamedTuple):
    """A checked request for bars; times in epoch microseconds."""

    width: Width
    limit: int
    from_us: int | None
    to_us: int | None
    fill: Fill


@get(
    "/api/v1/klines/{token_symbol:str}",
    operation_class=documented(RULES),
    responses={200: ResponseSpec(KlinesAnswer, description="Bars, ascending by open time")},
    summary="Bars of a token",
)
async def get_klines(request: Incoming, token_symbol: FromPath[str]) -> Reply:
    """`[from, to)` is compared with open times. Without `from` the latest `limit` bars, with it the oldest."""
    # Not injected, as everywhere else: that would cost as much as all that is done here for a page that is held.
    services: Services = request.app.state.services
    query = _query(request.scope["query_string"])
    spend(request.scope, page_weight(query.limit, query.width.parts) - 1)
    now = services.now()
    symbol, token_id = await services.find(token_symbol)
    question = Question(token_id, *query)

    async def read_page() -> Answer:
        return await _read(services, symbol, question)

    answer = await services.answers.answer(question, to_us(now) // 1000, services.versions.version, read_page)
    return cacheable(request, answer, _cache_control(services, query, answer, now))


# Clients ask for the same again and again; what is refused is not kept.
@lru_cache(1024)
def _query(query_string: bytes) -> Query:
    query = Query(*read(query_string, RULES).values())
    refuse_reversed(query.from_us, query.to_us)
    refuse_costly(query.limit, query.width)
    return query


async def _read(services: Services, symbol: str, question: Question) -> Answer:
    token_id, width, limit, from_us, until_us, fill = question
    async with services.reading(dear=is_dear(limit, width)) as connection:
        # Only now: who waited for others, or for a connection, is answered as of the time of the read.
        now = services.now()
        page = await filled_page(connection, token_id, width, Window(limit, from_us, until_us), fill, now)
    body = b'{"symbol":%b,"interval":"%b","klines":[%b]}' % (
        msgspec.json.encode(symbol),
        width.name.encode(),
        page.json.encode(),
    )
    return Answer(question, page, body, to_us(now) // 1000)


def refuse_costly(limit: int, width: Width, name: str = "limit") -> None:
    """Raise `BadRequest` for more bars than a read may make of stored ones."""
    if limit > width.most:
        made = f"each is made of up to {width.parts} bars of {width.source.value}"
        raise BadRequest(f"{name} {limit}: at most {width.most} bars of {width.name}; {made}", code=f"{name}_invalid")


def cacheable(request: Incoming, answer: Answer, cache_control: str | None) -> Reply:
    """The answer with an ETag, or 304 if the client has it; `no-store` where it may change at any moment."""
    if cache_control is None:
        return Reply(200, answer.body, [(b"cache-control", b"no-store")])
    headers = [(b"etag", answer.etag.encode()), (b"cache-control", cache_control.encode())]
    asked = b",".join(value for name, value in request.scope["headers"] if name == b"if-none-match")
    known = [tag.strip().removeprefix("W/") for tag in asked.decode("latin-1").split(",")] if asked else []
    if answer.etag in known or "*" in known:
        return Reply(304, b"", headers)
    return Reply(200, answer.body, headers)


class Reply:
    """A JSON body as it is sent: the framework's own response costs more than to find what is sent again."""

    __slots__ = ("_body", "_headers", "_status")

    def __init__(self, status: int, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
        self._status, self._body = status, body
        length = (b"content-length", str(len(body)).encode())
        self._headers = [*headers, *([] if status == HTTPStatus.NOT_MODIFIED else [JSON, length])]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it (ASGI)."""
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._body, "more_body": False})


async def filled_page(
    connection: AsyncConnection, token_id: int, width: Width, window: Window, fill: Fill, now: datetime
) -> klines.Page:
    """The bars of a window, with the buckets without trades filled as asked."""
    if fill == "none":
        return await klines.page(connection, token_id, width, window, now)
    # Before the bars: they may hold more than it says, never less.
    found = await versions(connection, [token_id])
    bars = await klines.rows(connection, token_id, width, window, now)
    request = FillRequest(width, window.limit, _up(window.from_us), _up(window.to_us), fill)
    rows, last_open_ms = filled(request, bars, to_us(now) // 1000)
    return klines.Page(",".join(rows), last_open_ms, found.get(token_id))


def _up(time_us: int | None) -> int | None:
    # Open times are whole milliseconds: one at or after a time is one at or after the next of them.
    return None if time_us is None else -(-time_us // 1000)


def _cache_control(services: Services, query: Query, answer: Answer, now: datetime) -> str | None:
    now_us = to_us(now)
    if answer.end_ms is None or answer.end_ms * 1000 > now_us:
        return None
    # A range that ends in the past changes only by late trades; any other gets a new bar by itself.
    if services.settings.klines_closed_max_age and query.to_us is not None and query.to_us <= now_us:
        return f"public, max-age={services.settings.klines_closed_max_age}"
    return "public, no-cache"
