"""`/api/v1/trades`: trades in, and stored trades of a range out."""

from __future__ import annotations

from functools import partial

import msgspec
from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from klines.database import reading
from klines.errors import BadRequest
from klines.models import Receipt, TradeColumns
from klines.queries import trades
from klines.queries.window import Window
from klines.trade_input import trades_of_json, trades_of_ndjson
from klines.trade_rules import TradeRules
from klines.web.admission.intake import Room
from klines.web.admission.limits import page_weight, spend
from klines.web.body import JSON, NDJSON, read_body
from klines.web.parameters import documented, integer, moment, read, refuse_reversed
from klines.web.schemas import TradesAnswer
from klines.web.services import Given, Incoming, Services

MAX_BODY = 32 * 1024 * 1024

RULES = (
    integer("limit", "most trades in the answer", default=100, low=1, high=5000),
    moment("from", "first time, epoch milliseconds or ISO-8601 with an offset"),
    moment("to", "end of the times, exclusive"),
)


@get(
    "/api/v1/trades/{token_symbol:str}",
    operation_class=documented(RULES),
    responses={200: ResponseSpec(TradesAnswer, description="Trades, ascending by (time, trade_id)")},
    summary="Stored trades of a token",
)
async def get_trades(request: Incoming, token_symbol: FromPath[str], services: Given) -> Response[bytes]:
    """`[from, to)` as for bars: without `from` the latest `limit` trades, with it the oldest."""
    limit, from_us, to_us = read(request.scope["query_string"], RULES).values()
    refuse_reversed(from_us, to_us)
    spend(request.scope, page_weight(limit) - 1)
    async with reading(services.engine) as connection:
        symbol, token_id = await services.token(connection, token_symbol)
        page = await trades.page(connection, token_id, Window(limit, from_us, to_us))
    body = b'{"symbol":%b,"trades":[%b]}' % (msgspec.json.encode(symbol), page.encode())
    return Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})


@post(
    "/api/v1/trades",
    status_code=200,
    request_max_body_size=MAX_BODY,
    responses={200: ResponseSpec(Receipt, description="Stored, on disk")},
    summary="Store trades",
)
async def post_trades(request: Incoming, services: Given) -> Response[Receipt]:
    """`{"trades": [...]}` (10,000 at most) or NDJSON (100,000 lines). All of it is stored or nothing."""
    read(request.scope["query_string"], ())
    announced = request.content_length or 0
    with services.intake.room(announced if announced <= MAX_BODY else 0) as room:
        batch = await _batch(request, services, room)
        spend(request.scope, len(batch) - 1)
        return Response(await services.writer.write(batch))


async def _batch(request: Incoming, services: Services, room: Room) -> TradeColumns:
    media_type, body = await read_body(request, JSON, NDJSON, room=room)
    if not body.strip():
        raise BadRequest("the body is empty", code="body_empty")
    trades_of = trades_of_json if media_type == JSON else trades_of_ndjson
    rules = TradeRules(services.settings.klines_max_future_seconds)
    return await services.intake.parsed(partial(trades_of, body, rules), len(body))
