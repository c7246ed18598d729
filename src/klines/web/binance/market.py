"""`/api/v3/ping`, `/api/v3/time`, `/api/v3/exchangeInfo`: what the market is, as clients ask when they start.

All members that Binance documents are there, because some clients insist on them. No order can be placed here, so
there are no order types; every token trades, on the spot. The rate limit is the one that holds, if one does.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from litestar import Response, get

from klines.database import reading
from klines.queries.tickers import Listed, listed
from klines.settings import Settings
from klines.timestamp import to_us
from klines.web.admission.limits import ALL_TOKENS
from klines.web.binance import query
from klines.web.binance.answer import answer, unit_of
from klines.web.binance.refusal import combination
from klines.web.binance.tickers import asked, known
from klines.web.binance.weight import weigh
from klines.web.services import Given, Incoming

# ISO 4217: no currency is involved.
NO_CURRENCY = "XXX"
SEPARATORS = "-:_"
EXCHANGE_WEIGHT = 20
DEFAULT_DECIMALS = 8
MAX_DECIMALS = 18
# Binance's own least; more only where a price has them, as some clients drop symbols with finer ticks.
MIN_PRICE_DECIMALS = 8
PERMISSION = "SPOT"
# Clients keep a maximum in a number of their own; the narrowest of those verified reach a little further.
MAXIMUM = "10000000000000"

RULES: query.Rules = {
    "symbol": query.symbol,
    "symbols": query.symbols,
    "permissions": query.permissions,
    "showPermissionSets": query.one_of("true", "false"),
    "symbolStatus": query.one_of("TRADING", "HALT", "BREAK"),
}

CONSTANTS: dict[str, Any] = {
    "status": "TRADING",
    "orderTypes": [],
    "icebergAllowed": False,
    "ocoAllowed": False,
    "otoAllowed": False,
    "opoAllowed": False,
    "quoteOrderQtyMarketAllowed": False,
    "allowTrailingStop": False,
    "cancelReplaceAllowed": False,
    "amendAllowed": False,
    "pegInstructionsAllowed": False,
    "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": False,
    "defaultSelfTradePreventionMode": "NONE",
    "allowedSelfTradePreventionModes": ["NONE"],
}


@get("/ping", opt={"weight": 1})
async def get_ping(request: Incoming) -> Response[bytes]:
    """Nothing: the service answers."""
    query.read(request.scope["query_string"], {})
    return answer({})


@get("/time", opt={"weight": 1})
async def get_time(request: Incoming, services: Given) -> Response[bytes]:
    """The service's clock."""
    query.read(request.scope["query_string"], {})
    return answer({"serverTime": unit_of(request).of_us(to_us(services.now()))})


@get("/exchangeInfo", opt={"weight": EXCHANGE_WEIGHT})
async def get_exchange_info(request: Incoming, services: Given) -> Response[bytes]:
    """The tokens asked for, or the 1,000 that were traded last, with the decimals their prices have now, at least 8."""
    values = query.read(request.scope["query_string"], RULES)
    symbols = asked(values)
    if symbols is not None and values.keys() & {"permissions", "symbolStatus"}:
        raise combination("permissions and symbolStatus go without symbol and symbols")
    wanted = (
        PERMISSION in values.get("permissions", [PERMISSION]) and values.get("symbolStatus", "TRADING") == "TRADING"
    )
    weigh(request, EXCHANGE_WEIGHT if symbols is not None else ALL_TOKENS)
    async with reading(services.engine) as connection:
        rows = known(await listed(connection, symbols), symbols)
    sets = [[PERMISSION]] if values.get("showPermissionSets", "true") == "true" else []
    return answer(
        {
            "timezone": "UTC",
            "serverTime": unit_of(request).of_us(to_us(services.now())),
            "rateLimits": _rate_limits(services.settings),
            "exchangeFilters": [],
            "symbols": [_symbol(row) | {"permissionSets": sets} for row in rows] if wanted else [],
        }
    )


def _rate_limits(settings: Settings) -> list[dict[str, Any]]:
    if settings.authority == "open" or not settings.klines_read_limit:
        return []
    limit = settings.klines_read_limit
    return [{"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": limit}]


def _symbol(row: Listed) -> dict[str, Any]:
    base, quote = pair(row)
    decimals = min(DEFAULT_DECIMALS if row.decimals is None else row.decimals, MAX_DECIMALS)
    precision = _price_decimals(row.price)
    return {
        "symbol": row.symbol,
        "baseAsset": base,
        "baseAssetPrecision": decimals,
        "quoteAsset": quote,
        "quotePrecision": precision,
        "quoteAssetPrecision": precision,
        "baseCommissionPrecision": decimals,
        "quoteCommissionPrecision": precision,
        **CONSTANTS,
        "permissions": [PERMISSION],
        "filters": _filters(_step(precision), _step(decimals)),
    }


def pair(row: Listed) -> tuple[str, str]:
    """Base and quote: as they are known, else the parts of the symbol around its last separator, else the symbol."""
    base, quote = row.symbol, NO_CURRENCY
    for separator in SEPARATORS:
        before, _, after = row.symbol.rpartition(separator)
        if before and after:
            base, quote = before, after
            break
    return row.base or base, row.quote or quote


def _filters(tick: str, step: str) -> list[dict[str, Any]]:
    # Some clients take the first one for the price's.
    return [
        {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": MAXIMUM, "tickSize": tick},
        {"filterType": "LOT_SIZE", "minQty": step, "maxQty": MAXIMUM, "stepSize": step},
        {
            "filterType": "NOTIONAL",
            "minNotional": "0",
            "applyMinToMarket": False,
            "maxNotional": MAXIMUM,
            "applyMaxToMarket": False,
            "avgPriceMins": 5,
        },
    ]


def _price_decimals(price: str | None) -> int:
    _, _, fraction = (price or "").partition(".")
    return min(max(MIN_PRICE_DECIMALS, len(fraction)), MAX_DECIMALS)


def _step(decimals: int) -> str:
    return format(Decimal(1).scaleb(-decimals), "f")
