"""binance-connector: REST with the weights it shows, and its streams, which it adds and drops while they run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.clients.environments import CONNECTOR
from tests.clients.market import BARE, BEGIN_MS, MINUTE, SCRIPT, WIF, Market, dense, now_ms, row
from tests.clients.session import Refused, Session, client_at
from tests.clients.spot import in_events, in_rows, of_event, told_bar, told_trades

pytestmark = pytest.mark.clients(CONNECTOR)


@pytest.fixture
async def connector(market: Market) -> AsyncIterator[Session]:
    async with client_at(CONNECTOR, "connector.py", market.url, market.socket_url) as session:
        yield session


async def test_rest(market: Market, connector: Session) -> None:
    span = {"startTime": BEGIN_MS, "endTime": BEGIN_MS + 99 * MINUTE, "limit": 1000}
    for symbol, method in ((WIF, "klines"), (SCRIPT, "klines"), (BARE, "ui_klines")):
        answer = await connector.call(method, symbol, "1m", **span)
        wanted = dense(await market.bars(symbol, "1m"), "1m", BEGIN_MS, BEGIN_MS + 99 * MINUTE + 1)
        assert answer["data"] == [row(bar, "1m") for bar in wanted]
        assert int(answer["limit_usage"]["x-mbx-used-weight-1m"]) >= 2
    trades = await connector.call("agg_trades", WIF, limit=40)
    assert trades["data"] == in_rows((await market.trades(WIF))[-40:])
    info = await connector.call("exchange_info", symbols=[WIF, BARE])
    assert {one["symbol"] for one in info["data"]["symbols"]} == {WIF, BARE}
    assert abs((await connector.call("time"))["data"]["serverTime"] - now_ms()) < 5000


async def test_a_refusal_has_its_number(connector: Session) -> None:
    with pytest.raises(Refused, match="-1120") as refused:
        await connector.call("klines", WIF, "1M")
    assert refused.value.kind == "ClientError"


async def test_streams_come_and_go(market: Market, connector: Session) -> None:
    await connector.call("streams.trade", WIF, id=1)
    await connector.call("streams.kline", SCRIPT, "3m", id=2)
    assert [await connector.event(lambda one: "result" in one) for _ in range(2)] == [
        {"result": None, "id": 1},
        {"result": None, "id": 2},
    ]
    await connector.call("streams.list_subscribe", id=3)
    listed = await connector.event(lambda one: one.get("id") == 3)
    assert sorted(listed["result"]) == sorted([f"{WIF.lower()}@trade", f"{SCRIPT.lower()}@kline_3m"])
    stored = await market.trade_now(WIF, 2)
    assert await told_trades(connector, WIF, 2) == in_events(WIF, stored)
    await market.trade_now(SCRIPT, 3)
    await told_bar(market, connector, SCRIPT, "3m")
    await connector.call("streams.unsubscribe", f"{WIF.lower()}@trade", id=4)
    assert await connector.event(lambda one: "result" in one) == {"result": None, "id": 4}
    await market.trade_now(WIF)
    await connector.call("streams.trade", BARE, id=5)
    await connector.event(lambda one: one.get("id") == 5)
    (stored_last,) = in_events(BARE, await market.trade_now(BARE))
    assert of_event(await connector.event(lambda one: one.get("e") == "trade")) == stored_last


async def test_a_stream_that_there_is_none_of(connector: Session) -> None:
    await connector.call("streams.kline", WIF, "1M", id=7)
    refused = await connector.event()
    assert (refused["id"], refused["error"]["code"]) == (7, 2)
    assert "1M" in refused["error"]["msg"]
