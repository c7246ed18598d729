"""`/api/v3/trades`, `/api/v3/historicalTrades`, `/api/v3/aggTrades`: stored trades; each is an aggregate of its own.

Rows ascend by (time, trade_id), and by trade_id where `fromId` is given, which is how clients page. The side of a
trade is its taker's: the buyer was the maker where the taker sold.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response, get

from klines.queries import trades
from klines.queries.window import Window
from klines.web.binance import query
from klines.web.binance.answer import Unit, answer, product, unit_of
from klines.web.binance.refusal import combination
from klines.web.schemas import StoredTrade
from klines.web.services import Given, Incoming, Services

DEFAULT_ROWS = 500

LATEST: query.Rules = {"symbol": query.symbol, "limit": query.limit}
HISTORICAL: query.Rules = {**LATEST, "fromId": query.trade_id}
AGGREGATE: query.Rules = {**HISTORICAL, "startTime": query.begin, "endTime": query.end}

_trades = msgspec.json.Decoder(list[StoredTrade])


@get("/trades", opt={"weight": 25})
async def get_trades(request: Incoming, services: Given) -> Response[bytes]:
    """The latest trades."""
    return await _plain(request, services, LATEST)


@get("/historicalTrades", opt={"weight": 25})
async def get_historical_trades(request: Incoming, services: Given) -> Response[bytes]:
    """The trades from `fromId` on, itself included; without it the latest."""
    return await _plain(request, services, HISTORICAL)


@get("/aggTrades", opt={"weight": 4})
async def get_aggregate_trades(request: Incoming, services: Given) -> Response[bytes]:
    """From `fromId` on, or of `[startTime, endTime]` as for bars, or the latest."""
    unit = unit_of(request)
    values = query.read(request.scope["query_string"], AGGREGATE, ("symbol",))
    if "fromId" in values and len(values.keys() & {"startTime", "endTime"}):
        raise combination("fromId goes without startTime and endTime")
    return answer([_aggregate(trade, unit) for trade in await _read(services, values)])


async def _plain(request: Incoming, services: Services, rules: query.Rules) -> Response[bytes]:
    unit = unit_of(request)
    values = query.read(request.scope["query_string"], rules, ("symbol",))
    return answer([_trade(trade, unit) for trade in await _read(services, values)])


async def _read(services: Services, values: dict[str, Any]) -> list[StoredTrade]:
    limit = values.get("limit", DEFAULT_ROWS)
    # Trades by their ids are found among all of the token's.
    async with services.reading(dear="fromId" in values) as connection:
        _, token_id = await services.token(connection, values["symbol"])
        if "fromId" in values:
            page = await trades.from_id(connection, token_id, values["fromId"], limit)
        else:
            window = Window(limit, values.get("startTime"), values.get("endTime"))
            page = await trades.page(connection, token_id, window)
    return _trades.decode(f"[{page}]")


def _trade(trade: StoredTrade, unit: Unit) -> dict[str, Any]:
    return {
        "id": trade.trade_id,
        "price": trade.price,
        "qty": trade.amount,
        "quoteQty": product(trade.price, trade.amount),
        "time": unit.of_us(trade.time_us),
        "isBuyerMaker": trade.side == "sell",
        "isBestMatch": True,
    }


def _aggregate(trade: StoredTrade, unit: Unit) -> dict[str, Any]:
    return {
        "a": trade.trade_id,
        "p": trade.price,
        "q": trade.amount,
        "f": trade.trade_id,
        "l": trade.trade_id,
        "T": unit.of_us(trade.time_us),
        "m": trade.side == "sell",
        "M": True,
    }
