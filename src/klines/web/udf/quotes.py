"""`/udf/time` and `/udf/quotes`: the clock, and the last 24 hours of tokens.

The members of a quote are TradingView's. Its day is the last 24 hours, as everywhere in this service: `open_price` and
`prev_close_price` are both the price that `ch` and `chp` (percent) count from. There is no order book, so `bid` and
`ask` are the last price. What is not known of a token is left out: prices before its first trade, the high and the low
of 24 hours without a trade.
"""

from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

from litestar import Response, get

from klines.database import reading
from klines.errors import BadRequest, InvalidSymbol
from klines.exact import MAX_DECIMALS, MAX_INTEGER_DIGITS, fixed
from klines.models import Token
from klines.queries import tokens
from klines.symbol import canonical_symbol
from klines.web.admission.limits import spend
from klines.web.services import Given, Incoming
from klines.web.udf.answers import HEADERS, UNKNOWN_SYMBOL, answer, number
from klines.web.udf.query import EXCHANGE, Query, spellings

MAX_QUOTES = 100
QUOTES_PER_WEIGHT = 5
MAX_TEXT = 8 * 1024


@get("/time")
async def get_time(services: Given) -> Response[str]:
    """The present moment in epoch seconds, as a bare number."""
    return Response(str(int(services.now().timestamp())), media_type="text/plain", headers=HEADERS)


@get("/quotes")
async def get_quotes(request: Incoming, services: Given) -> Response[bytes]:
    """Quotes of `symbols`, separated by commas, in their order; `n` is each one's name as it was asked for."""
    names = [name for name in Query(request).required("symbols", MAX_TEXT).split(",") if name]
    if len(names) > MAX_QUOTES:
        raise BadRequest(f"symbols: at most {MAX_QUOTES} at once", code="symbols_invalid")
    spend(request.scope, len(names) // QUOTES_PER_WEIGHT)
    wanted = {name: list(_symbols(name)) for name in names}
    async with reading(services.engine) as connection:
        symbols = {symbol for candidates in wanted.values() for symbol in candidates}
        found = {token.symbol: token for token in await tokens.named(connection, symbols, services.now())}
    answers = []
    for name in names:
        token = next((found[symbol] for symbol in wanted[name] if symbol in found), None)
        if token is None:
            answers.append({"s": "error", "n": name, "v": {}, "errmsg": UNKNOWN_SYMBOL})
        else:
            answers.append({"s": "ok", "n": name, "v": _quote(token)})
    return answer({"s": "ok", "d": answers})


def _symbols(name: str) -> list[str]:
    try:
        return [canonical_symbol(spelling) for spelling in spellings(name)]
    except InvalidSymbol:
        return []


def _quote(token: Token) -> dict[str, Any]:
    last, first = token.last_price, _first_price(token)
    prices = {
        "lp": last,
        "ask": last,
        "bid": last,
        "ch": token.price_change_24h,
        "chp": token.price_change_percent_24h,
        "open_price": first,
        "prev_close_price": first,
        "high_price": token.high_24h,
        "low_price": token.low_24h,
        "volume": token.volume_24h,
    }
    return {
        "short_name": token.symbol,
        "exchange": EXCHANGE,
        "description": token.name or token.symbol,
        **{name: number(text) for name, text in prices.items() if text is not None},
    }


def _first_price(token: Token) -> str | None:
    if token.last_price is None or token.price_change_24h is None:
        return None
    with localcontext(prec=MAX_INTEGER_DIGITS + MAX_DECIMALS + 1):
        return fixed(Decimal(token.last_price) - Decimal(token.price_change_24h))
