"""`/udf/config`, `/udf/symbols` and `/udf/search`: what this service has, and what its tokens are.

`/udf/symbols` answers without a member `s`, as its presence means an error. `pricescale` follows the last price
(`klines.precision`), since a meme token has no tick: a price of 0.00000123 is shown with eleven decimals. A chart reads
it once; whoever keeps a page open while a price falls by orders of magnitude has to load the symbol anew.
"""

from __future__ import annotations

from typing import Any

from litestar import Response, get

from klines.database import reading
from klines.errors import BadRequest
from klines.models import Token
from klines.precision import price_decimals
from klines.queries import search
from klines.web.admission.limits import spend
from klines.web.services import Given, Incoming
from klines.web.udf.answers import answer
from klines.web.udf.query import EXCHANGE, PREFIX, Query, read_token, without_prefix
from klines.web.udf.resolution import DAYS, LADDER, MINUTES, SECONDS, WEEKS

TYPE = "crypto"
# 10^16 is the largest that the library's prices, 64-bit floats, make sense with.
MAX_PRICE_DECIMALS = 16
MAX_VOLUME_DECIMALS = 8
FOUND = 30
MAX_FOUND = 1000
FOUND_PER_WEIGHT = 50

CONFIG = {
    "supports_search": True,
    "supports_group_request": False,
    "supports_marks": True,
    "supports_timescale_marks": True,
    "supports_time": True,
    "supported_resolutions": LADDER,
    "exchanges": [
        {"value": "", "name": "All exchanges", "desc": ""},
        {"value": EXCHANGE, "name": EXCHANGE, "desc": EXCHANGE},
    ],
    "symbols_types": [{"value": "", "name": "All types"}, {"value": TYPE, "name": TYPE}],
}

# Of every token: it trades around the clock, and all widths come from here, so the library builds none itself.
CONSTANTS: dict[str, Any] = {
    "type": TYPE,
    "session": "24x7",
    "timezone": "Etc/UTC",
    "exchange": EXCHANGE,
    "listed_exchange": EXCHANGE,
    "minmov": 1,
    "format": "price",
    "has_intraday": True,
    "intraday_multipliers": MINUTES,
    "has_seconds": True,
    "seconds_multipliers": SECONDS,
    "has_daily": True,
    "daily_multipliers": DAYS,
    "has_weekly_and_monthly": True,
    "weekly_multipliers": WEEKS,
    "monthly_multipliers": (),
    "supported_resolutions": LADDER,
    "visible_plots_set": "ohlcv",
    "data_status": "streaming",
}


@get("/config")
async def get_config() -> Response[bytes]:
    """What the library may ask for."""
    return answer(CONFIG)


@get("/symbols")
async def get_symbol(request: Incoming, services: Given) -> Response[bytes]:
    """One token, by its symbol or `KLINES:` and its symbol."""
    symbol = Query(request).required("symbol")
    async with reading(services.engine) as connection:
        return answer(_described(await read_token(services, connection, symbol)))


@get("/search")
async def get_search(request: Incoming, services: Given) -> Response[bytes]:
    """Tokens whose symbol or name contains `query`, in any case: the adapter sends it in upper case."""
    query = Query(request)
    wanted, limit = without_prefix(query.text("query")), query.count("limit", MAX_FOUND)
    if limit is None and query.text("limit"):
        raise BadRequest("limit: must be at least 1", code="limit_invalid")
    spend(request.scope, (limit or FOUND) // FOUND_PER_WEIGHT)
    if query.text("type") not in {"", TYPE} or query.text("exchange").upper() not in {"", EXCHANGE}:
        return answer([])
    async with reading(services.engine) as connection:
        found = await search.matching(connection, wanted, limit or FOUND)
    return answer([_named(symbol, name) | {"exchange": EXCHANGE, "type": TYPE} for symbol, name in found])


def _named(symbol: str, name: str | None) -> dict[str, str]:
    return {"symbol": symbol, "ticker": symbol, "full_name": PREFIX + symbol, "description": name or symbol}


def _described(token: Token) -> dict[str, Any]:
    symbol = _named(token.symbol, token.name)
    symbol["name"] = symbol.pop("symbol")
    decimals = MAX_VOLUME_DECIMALS if token.decimals is None else token.decimals
    return {
        **symbol,
        **CONSTANTS,
        "pricescale": 10 ** min(price_decimals(token.last_price), MAX_PRICE_DECIMALS),
        "volume_precision": min(decimals, MAX_VOLUME_DECIMALS),
        **({"currency_code": token.quote} if token.quote else {}),
    }
