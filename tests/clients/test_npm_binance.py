"""The npm package binance: REST and streams."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.clients.environments import NPM
from tests.clients.market import BEGIN_MS, MINUTE, SCRIPT, SYMBOLS, TINY, WIF, Market, dense, row
from tests.clients.session import Refused, Session, client_at
from tests.clients.spot import in_events, in_rows, told_bar, told_trades

pytestmark = pytest.mark.clients(NPM)


@pytest.fixture
async def npm(market: Market) -> AsyncIterator[Session]:
    async with client_at(NPM, "npm_binance.mjs", market.url, market.socket_url) as session:
        yield session


async def test_rest(market: Market, npm: Session) -> None:
    for symbol in (WIF, TINY, SCRIPT):
        asked = {"symbol": symbol, "interval": "1m", "startTime": BEGIN_MS, "endTime": BEGIN_MS + 99 * MINUTE}
        wanted = dense(await market.bars(symbol, "1m"), "1m", BEGIN_MS, BEGIN_MS + 99 * MINUTE + 1)
        assert await npm.call("getKlines", asked) == [row(bar, "1m") for bar in wanted]
    trades = await npm.call("getAggregateTrades", {"symbol": WIF, "limit": 40})
    assert trades == in_rows((await market.trades(WIF))[-40:])
    info = await npm.call("getExchangeInfo")
    assert sorted(one["symbol"] for one in info["symbols"]) == sorted(SYMBOLS)


async def test_a_refusal_has_its_number(npm: Session) -> None:
    with pytest.raises(Refused) as refused:
        await npm.call("getKlines", {"symbol": "NONE", "interval": "1m"})
    assert refused.value.kind == "-1121"


async def test_streams(market: Market, npm: Session) -> None:
    await npm.call("streams.subscribeSpotTrades", TINY)
    await npm.event(lambda one: "response" in one)
    await npm.call("streams.subscribeSpotKline", TINY, "1m")
    await npm.event(lambda one: "response" in one or one.get("e") == "kline")
    stored = await market.trade_now(TINY, 3)
    assert await told_trades(npm, TINY, 3) == in_events(TINY, stored)
    await market.trade_now(TINY, 2)
    await told_bar(market, npm, TINY, "1m")
