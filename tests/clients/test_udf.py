"""The bars of `/udf/history` as clients of other exchanges with the same dialect read them."""

from __future__ import annotations

from itertools import product

import pytest

from tests.clients.environments import CCXT
from tests.clients.market import BARE, BEGIN_MS, HOUR, SCRIPT, TINY, WIF, Market, width_ms
from tests.clients.session import client_at
from tests.clients.test_ccxt import NAMES

pytestmark = pytest.mark.clients(CCXT)

DAY = 24 * HOUR
# Mercado Bitcoin makes an id of base and quote, BtcTurk asks for one bucket less than its limit.
EXCHANGES = {
    "mercado": ((WIF, TINY, SCRIPT), ("15m", "1h", "1d", "1w"), 20),
    "btcturk": ((WIF, TINY, BARE, SCRIPT), ("1m", "15m", "30m", "4h"), 19),
}


@pytest.mark.parametrize("exchange", EXCHANGES)
async def test_bars(market: Market, exchange: str) -> None:
    symbols, intervals, buckets = EXCHANGES[exchange]
    names = [f"{id_}={name}" for id_, name in NAMES.items()]
    async with client_at(CCXT, "ccxt_udf.py", market.url, *names) as session:
        for symbol, interval in product(symbols, intervals):
            since = BEGIN_MS - BEGIN_MS % width_ms(interval) if interval != "1w" else BEGIN_MS - 2 * DAY
            end = since + buckets * width_ms(interval)
            wanted = [bar for bar in await market.bars(symbol, interval) if since <= bar.open_time < end]
            rows = await session.call(exchange, NAMES[symbol], interval, since, 20)
            # The dialect has JSON numbers, which this client reads as floats.
            assert [[float(one) for one in row] for row in rows] == [[float(one) for one in bar[:6]] for bar in wanted]
            assert wanted
