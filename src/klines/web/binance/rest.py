"""The REST side of the dialect: its routes under `/api/v3`, with its own errors and its weights on every answer.

`X-MBX-APIKEY` may carry a key of this service (see `klines.web.admission.access`); one of Binance, or an empty one, is
not looked at. What a client reads here is what the native API says: the same queries, the same gaps, in other words.
"""

from __future__ import annotations

from litestar import Response, Router, get
from litestar.params import FromPath

from klines.web.binance import bars, market, refusal, tickers, trades
from klines.web.binance.weight import weighed


@get("/{rest:path}", opt={"weight": 1})
async def get_nothing(rest: FromPath[str]) -> Response[bytes]:
    """What Binance has and this service has not, such as `/depth`: clients look for a number in any answer."""
    raise refusal.NotServed(f"/api/v3{rest} is not served here.")


ROUTER = Router(
    path="/api/v3",
    route_handlers=[
        market.get_ping,
        market.get_time,
        market.get_exchange_info,
        bars.get_klines,
        bars.get_average_price,
        trades.get_trades,
        trades.get_historical_trades,
        trades.get_aggregate_trades,
        tickers.get_days,
        tickers.get_prices,
        tickers.get_books,
        get_nothing,
    ],
    middleware=[weighed],
    exception_handlers=refusal.HANDLERS,
    include_in_schema=False,
)
