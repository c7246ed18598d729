"""`/api/v3/ticker/24hr`, `/price` and `/bookTicker`: of one symbol, of several, or of the 1,000 tokens traded last.

The numbers are those of `GET /api/v1/tokens`: 24 hours that begin at a whole minute, and a change against the first
price in them. A token that was never traded has zeros and trade ids of -1, as Binance shows a new symbol. There is no
order book: the best bid and ask are the last price, with a quantity of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, TypeVar

import msgspec
from litestar import Response, get

from klines.database import reading
from klines.queries.day import day_begins
from klines.queries.tickers import Day, Listed, days, listed
from klines.timestamp import to_us
from klines.web.admission.limits import ALL_TOKENS
from klines.web.binance import query
from klines.web.binance.answer import answered, average, unit_of
from klines.web.binance.refusal import STATUS_MISMATCH, Refusal, combination, unknown_symbol
from klines.web.binance.weight import weigh
from klines.web.services import Given, Incoming

RULES: query.Rules = {
    "symbol": query.symbol,
    "symbols": query.symbols,
    "symbolStatus": query.one_of("TRADING", "HALT", "BREAK"),
}
DAY_RULES: query.Rules = {**RULES, "type": query.one_of("FULL", "MINI")}
# A ticker of 24 hours weighs by the number of symbols: up to so many, so much.
DAY_WEIGHTS = ((20, 2), (100, 40))
MOST_WEIGHT = 80

Row = TypeVar("Row", Listed, Day)


@get("/ticker/24hr", opt={"weight": 2})
async def get_days(request: Incoming, services: Given) -> Response[bytes]:
    """The last 24 hours; `type=MINI` leaves the averages and the last trade out."""
    unit = unit_of(request)
    values = query.read(request.scope["query_string"], DAY_RULES)
    symbols = asked(values)
    weigh(request, _day_weight(symbols))

    async def told() -> bytes:
        now = services.now()
        async with reading(services.engine) as connection:
            rows = known(await days(connection, symbols, now), symbols)
        times = {"openTime": unit.of_us(to_us(day_begins(now))), "closeTime": unit.of_us(to_us(now))}
        full = values.get("type", "FULL") == "FULL"
        return _body(values, rows, lambda row: _day(row, times, full=full))

    if symbols is not None:
        return answered(await told())
    return answered(await services.joint.answer(("ticker/24hr", unit, *sorted(values.items())), told))


@get("/ticker/price", opt={"weight": 2})
async def get_prices(request: Incoming, services: Given) -> Response[bytes]:
    """The last price."""
    return await _last(request, services, lambda row: {"symbol": row.symbol, "price": row.price or "0"})


@get("/ticker/bookTicker", opt={"weight": 2})
async def get_books(request: Incoming, services: Given) -> Response[bytes]:
    """The last price as bid and ask of nothing, as there is no order book."""
    return await _last(request, services, lambda row: {"symbol": row.symbol, **_book(row.price or "0")})


def asked(values: dict[str, Any]) -> list[str] | None:
    """The symbols of a request, None for all; raises `Refusal` for `symbol` beside `symbols`."""
    if "symbol" in values and "symbols" in values:
        raise combination("symbol goes without symbols")
    return [values["symbol"]] if "symbol" in values else values.get("symbols")


def known(rows: list[Row], symbols: Sequence[str] | None) -> list[Row]:
    """The rows, if there is one of each symbol; raises `Refusal` else."""
    if symbols is not None and len(rows) < len(symbols):
        raise unknown_symbol()
    return rows


async def _last(request: Incoming, services: Given, show: Callable[[Listed], dict[str, Any]]) -> Response[bytes]:
    unit_of(request)
    values = query.read(request.scope["query_string"], RULES)
    symbols = asked(values)
    weigh(request, 2 if "symbol" in values else 4 if symbols is not None else ALL_TOKENS)
    async with reading(services.engine) as connection:
        rows = known(await listed(connection, symbols), symbols)
    return answered(_body(values, rows, show))


def _body(values: dict[str, Any], rows: list[Row], show: Callable[[Row], dict[str, Any]]) -> bytes:
    if values.get("symbolStatus", "TRADING") != "TRADING":
        if "symbol" in values:
            raise Refusal(STATUS_MISMATCH, "The symbol's status does not match the requested symbolStatus.")
        rows = []
    shown = [show(row) for row in rows]
    return msgspec.json.encode(shown[0] if "symbol" in values else shown)


def _day_weight(symbols: Sequence[str] | None) -> int:
    if symbols is None:
        return MOST_WEIGHT
    return next((weight for most, weight in DAY_WEIGHTS if len(symbols) <= most), MOST_WEIGHT)


def _day(row: Day, times: dict[str, int], *, full: bool) -> dict[str, Any]:
    last = row.price or "0"
    told = {
        "symbol": row.symbol,
        "openPrice": row.open or last,
        "highPrice": row.high or last,
        "lowPrice": row.low or last,
        "lastPrice": last,
        "volume": row.volume or "0",
        "quoteVolume": row.quote_volume or "0",
        **times,
        "firstId": -1 if row.first_trade_id is None else row.first_trade_id,
        "lastId": -1 if row.first_trade_id is None else row.last_trade_id,
        "count": row.trades or 0,
    }
    return told | _details(row, last) if full else told


def _details(row: Day, last: str) -> dict[str, Any]:
    return {
        "priceChange": row.change or "0",
        "priceChangePercent": row.change_percent or "0",
        "weightedAvgPrice": average(Decimal(row.quote_volume or 0), Decimal(row.volume or 0), row.price),
        "prevClosePrice": row.previous or row.open or "0",
        "lastQty": row.amount or "0",
        **_book(last),
    }


def _book(price: str) -> dict[str, str]:
    return {"bidPrice": price, "bidQty": "0", "askPrice": price, "askQty": "0"}
