"""ccxt's exchanges that speak UDF, as parsers of ours: Mercado Bitcoin and BtcTurk.

The base URL is given; the path behind it is theirs, and the only thing that is not as they have it.
"""

# mypy: disable-error-code="import-not-found,misc"

from __future__ import annotations

import sys
from typing import Any

import ccxt
from answering import answer_calls

PATHS = {"candles": "history", "klines/history": "history"}


class Mercado(ccxt.mercado):
    """Knows resolutions as `15m`, and columns without a status."""

    def sign(self, path: str, *arguments: Any, **keywords: Any) -> Any:
        return super().sign(PATHS[path], *arguments, **keywords)


class Btcturk(ccxt.btcturk):
    """Knows resolutions as minutes, and the columns of UDF."""

    def sign(self, path: str, *arguments: Any, **keywords: Any) -> Any:
        return super().sign(PATHS[path], *arguments, **keywords)


def market(id_: str, name: str) -> dict[str, Any]:
    base, quote = name.split("/")
    return {"id": id_, "symbol": name, "base": base, "quote": quote, "spot": True, "type": "spot"}


def opened(exchange: Any, place: str, base: str, names: list[str]) -> Any:
    exchange.urls["api"][place] = base + "/udf"
    exchange.number = str
    exchange.set_markets([market(*name.split("=")) for name in names])
    return exchange


base, *names = sys.argv[1:]
exchanges = {
    "mercado": opened(Mercado({"enableRateLimit": False}), "v4PublicNet", base, names),
    "btcturk": opened(Btcturk({"enableRateLimit": False}), "graph", base, names),
}
answer_calls(lambda name: exchanges[name].fetch_ohlcv)
