"""ccxt's Binance by REST, pointed at a base URL; `exact` keeps its numbers the text they came as."""

# mypy: disable-error-code="import-not-found,unused-ignore"

from __future__ import annotations

import sys

import ccxt
from answering import answer_calls

exchange = ccxt.binance({"options": {"fetchMarkets": ["spot"]}})
exchange.urls["api"]["public"] = sys.argv[1] + "/api/v3"
if "exact" in sys.argv:
    exchange.number = str
answer_calls(lambda name: getattr(exchange, name))
