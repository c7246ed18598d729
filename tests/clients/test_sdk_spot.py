"""binance-sdk-spot, Binance's own: REST through its typed models, and its streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.clients.environments import SDK
from tests.clients.market import BEGIN_MS, MINUTE, SYMBOLS, TINY, WIF, Market, dense, row
from tests.clients.session import Refused, Session, client_at
from tests.clients.spot import in_events, in_rows, told_bar, told_trades

pytestmark = pytest.mark.clients(SDK)


@pytest.fixture
async def sdk(market: Market) -> AsyncIterator[Session]:
    async with client_at(SDK, "sdk_spot.py", market.url, market.socket_url) as session:
        yield session


async def test_rest(market: Market, sdk: Session) -> None:
    for symbol in SYMBOLS:
        span = {"start_time": BEGIN_MS, "end_time": BEGIN_MS + 99 * MINUTE}
        answer = await sdk.call("rest", "klines", symbol=symbol, interval="1m", **span)
        wanted = dense(await market.bars(symbol, "1m"), "1m", BEGIN_MS, BEGIN_MS + 99 * MINUTE + 1)
        assert answer["data"] == [row(bar, "1m") for bar in wanted]
        assert answer["limits"][0] >= 2
    answer = await sdk.call("rest", "agg_trades", symbol=WIF, limit=40)
    assert answer["data"] == in_rows((await market.trades(WIF))[-40:])
    info = await sdk.call("rest", "exchange_info")
    assert sorted(one["symbol"] for one in info["data"]["symbols"]) == sorted(SYMBOLS)


async def test_a_refusal(sdk: Session) -> None:
    with pytest.raises(Refused, match="Invalid symbol"):
        await sdk.call("rest", "klines", symbol="NONE", interval="1m")


async def test_streams_come_and_go(market: Market, sdk: Session) -> None:
    await sdk.call("watch", "trade", symbol=TINY.lower())
    await sdk.call("watch", "kline", symbol=TINY.lower(), interval="1m")
    names = [f"{TINY.lower()}@trade", f"{TINY.lower()}@kline_1m"]
    assert (await sdk.call("listed"))["result"] == names
    stored = await market.trade_now(TINY, 3)
    assert await told_trades(sdk, TINY, 3) == in_events(TINY, stored)
    await told_bar(market, sdk, TINY, "1m")
    await sdk.call("unwatch", "trade")
    assert (await sdk.call("listed"))["result"] == names[1:]
    await market.trade_now(TINY, 2)
    await told_bar(market, sdk, TINY, "1m")
