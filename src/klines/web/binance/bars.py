"""`/api/v3/klines`, `/api/v3/uiKlines`, `/api/v3/avgPrice`: the bars of `/api/v1/klines` with `fill=prev`, as rows.

The series is dense, as Binance's is: a bucket without trades has a flat bar at the previous close. `startTime` and
`endTime` are both inclusive and compared with open times, as all clients expect though no document says so; a range
that ends before it begins is empty and no error, because clients that page ask for one when they are through.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
from litestar import Response, get

from klines.database import reading
from klines.dear import is_dear
from klines.errors import BadRequest
from klines.interval import Width
from klines.queries import klines
from klines.queries.tickers import listed
from klines.queries.window import Window
from klines.timestamp import to_us
from klines.web.admission.limits import page_weight
from klines.web.binance import query
from klines.web.binance.answer import EXACT, Unit, answer, average, unit_of
from klines.web.binance.refusal import invalid, unknown_symbol
from klines.web.binance.weight import weigh
from klines.web.klines import filled_page, refuse_costly
from klines.web.schemas import Kline
from klines.web.services import Given, Incoming, Services

DEFAULT_ROWS = 500
AVERAGE_MINUTES = 5

RULES: query.Rules = {
    "symbol": query.symbol,
    "interval": query.interval,
    "startTime": query.begin,
    "endTime": query.end,
    "timeZone": query.offset,
    "limit": query.limit,
}

_bars = msgspec.json.Decoder(list[Kline])


@get(["/klines", "/uiKlines"], opt={"weight": 2})
async def get_klines(request: Incoming, services: Given) -> Response[bytes]:
    """Rows of twelve, ascending; with `startTime` the oldest of the range, without it the latest.

    A `limit` beyond what a page of the width may have is cut to that, as one beyond 1000 is: clients page on.
    """
    unit = unit_of(request)
    values = query.read(request.scope["query_string"], RULES, ("symbol", "interval"))
    width: Width = values["interval"]._replace(shift=values.get("timeZone", 0))
    # A page without any row would end a client's paging: a width of which none can be made is refused.
    rows = max(1, min(values.get("limit", DEFAULT_ROWS), width.most))
    try:
        refuse_costly(rows, width)
    except BadRequest as error:
        raise invalid("limit", error.detail) from None
    if width.parts > 1:
        weigh(request, 1 + page_weight(rows, width.parts))
    bars = await _dense(services, values["symbol"], width, Window(rows, values.get("startTime"), values.get("endTime")))
    return answer([_row(bar, unit) for bar in bars])


@get("/avgPrice", opt={"weight": 2})
async def get_average_price(request: Incoming, services: Given) -> Response[bytes]:
    """Quote volume per volume over the last five minutes of seconds; without a trade in them the last price."""
    unit = unit_of(request)
    symbol = query.read(request.scope["query_string"], {"symbol": query.symbol}, ("symbol",))["symbol"]
    now = services.now()
    window = Window(60 * AVERAGE_MINUTES + 1, to_us(now) - 60_000_000 * AVERAGE_MINUTES)
    async with reading(services.engine) as connection:
        found = await listed(connection, [symbol])
        if not found:
            raise unknown_symbol()
        _, token_id = await services.token(connection, symbol)
        page = await klines.page(connection, token_id, Width(1), window, now)
    bars = _bars.decode(f"[{page.json}]")
    volume, quote_volume = _sum(bar.volume for bar in bars), _sum(bar.quote_volume for bar in bars)
    price = average(quote_volume, volume, found[0].price)
    close_time = unit.of_us(found[0].time_us or 0)
    return answer({"mins": AVERAGE_MINUTES, "price": price, "closeTime": close_time})


async def _dense(services: Services, symbol: str, width: Width, window: Window) -> list[Kline]:
    now = services.now()
    async with services.reading(dear=is_dear(window.limit, width)) as connection:
        _, token_id = await services.token(connection, symbol)
        page = await filled_page(connection, token_id, width, window, "prev", now)
    return _bars.decode(f"[{page.json}]")


def _row(bar: Kline, unit: Unit) -> list[Any]:
    return [
        unit.of_ms(bar.open_time),
        *(bar.open, bar.high, bar.low, bar.close, bar.volume),
        unit.of_ms(bar.close_time + 1) - 1,
        *(bar.quote_volume, bar.trades, bar.buy_volume, bar.buy_quote_volume),
        "0",
    ]


def _sum(values: Any) -> Decimal:
    total = Decimal(0)
    for value in values:
        total = EXACT.add(total, Decimal(value))
    return total
