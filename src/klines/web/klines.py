"""`GET /api/v1/klines/{token_symbol}`: bars of a range, the open one included."""

from __future__ import annotations

from datetime import datetime
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.dear import is_dear
from klines.errors import BadRequest
from klines.gaps import FILLS, Fill, filled
from klines.gaps import Request as FillRequest
from klines.interval import Width, parse_interval
from klines.queries import klines
from klines.queries.window import Window
from klines.timestamp import to_us
from klines.web.admission.limits import page_weight, spend
from klines.web.parameters import choice, documented, integer, moment, parsed, read, refuse_reversed
from klines.web.schemas import KlinesAnswer
from klines.web.services import Given, Incoming, Services

RULES = (
    parsed("interval", "width of a bar: 1s 1m 5m 15m 1h 4h 1d, or any other from 1s to 1w", "1m", parse_interval),
    integer("limit", "most bars in the answer", default=100, low=1, high=5000),
    moment("from", "first open time, epoch milliseconds or ISO-8601 with an offset"),
    moment("to", "end of the open times, exclusive"),
    choice("fill", "what stands for a bucket without trades", FILLS, "none"),
)


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
async def get_klines(request: Incoming, token_symbol: FromPath[str], services: Given) -> Response[bytes]:
    """`[from, to)` is compared with open times. Without `from` the latest `limit` bars, with it the oldest."""
    query = Query(*read(request.scope["query_string"], RULES).values())
    refuse_reversed(query.from_us, query.to_us)
    refuse_costly(query.limit, query.width)
    spend(request.scope, page_weight(query.limit, query.width.parts) - 1)
    now = services.now()
    async with services.reading(dear=is_dear(query.limit, query.width)) as connection:
        symbol, token_id = await services.token(connection, token_symbol)
        window = Window(query.limit, query.from_us, query.to_us)
        page = await filled_page(connection, token_id, query.width, window, query.fill, now)
    body = b'{"symbol":%b,"interval":"%b","klines":[%b]}' % (
        msgspec.json.encode(symbol),
        query.width.name.encode(),
        page.json.encode(),
    )
    return cacheable(request, body, _cache_control(services, query, page, now))


def refuse_costly(limit: int, width: Width, name: str = "limit") -> None:
    """Raise `BadRequest` for more bars than a read may make of stored ones."""
    if limit > width.most:
        made = f"each is made of up to {width.parts} bars of {width.source.value}"
        raise BadRequest(f"{name} {limit}: at most {width.most} bars of {width.name}; {made}", code=f"{name}_invalid")


def cacheable(request: Incoming, body: bytes, cache_control: str | None) -> Response[bytes]:
    """The answer with an ETag, or 304 if the client has it; `no-store` where it may change at any moment."""
    if cache_control is None:
        return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})
    etag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {"ETag": etag, "Cache-Control": cache_control}
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if etag in known or "*" in known:
        return Response(b"", status_code=304, headers=headers)
    return Response(body, media_type="application/json", headers=headers)


async def filled_page(
    connection: AsyncConnection, token_id: int, width: Width, window: Window, fill: Fill, now: datetime
) -> klines.Page:
    """The bars of a window, with the buckets without trades filled as asked."""
    if fill == "none":
        return await klines.page(connection, token_id, width, window, now)
    bars = await klines.rows(connection, token_id, width, window, now)
    request = FillRequest(width, window.limit, _up(window.from_us), _up(window.to_us), fill)
    rows, last_open_ms = filled(request, bars, to_us(now) // 1000)
    return klines.Page(",".join(rows), last_open_ms)


def _up(time_us: int | None) -> int | None:
    # Open times are whole milliseconds: one at or after a time is one at or after the next of them.
    return None if time_us is None else -(-time_us // 1000)


def _cache_control(services: Services, query: Query, page: klines.Page, now: datetime) -> str | None:
    now_us = to_us(now)
    if page.last_open_ms is None or (page.last_open_ms + query.width.milliseconds) * 1000 > now_us:
        return None
    # A range that ends in the past changes only by late trades; any other gets a new bar by itself.
    if services.settings.klines_closed_max_age and query.to_us is not None and query.to_us <= now_us:
        return f"public, max-age={services.settings.klines_closed_max_age}"
    return "public, no-cache"
