"""python-binance: bars over many pages, trades to the end, what there is to trade, and its sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from tests.clients.environments import PYTHON_BINANCE
from tests.clients.market import (
    BEGIN_MS,
    MINUTE,
    SCRIPT,
    SYMBOLS,
    TINY,
    WIF,
    Market,
    dense,
    now_ms,
    row,
    width_ms,
)
from tests.clients.session import Refused, Session, client_at
from tests.clients.spot import bar_of, in_events, in_rows, of_event, told_bar, told_trades
from tests.clients.test_ccxt import day

pytestmark = pytest.mark.clients(PYTHON_BINANCE)

DAY = {
    **{"last": "lastPrice", "open": "openPrice", "high": "highPrice", "low": "lowPrice"},
    **{"baseVolume": "volume", "quoteVolume": "quoteVolume", "change": "priceChange"},
}


@pytest.fixture
async def rest(market: Market) -> AsyncIterator[Session]:
    async with client_at(PYTHON_BINANCE, "python_binance.py", market.url) as session:
        yield session


@pytest.fixture
async def sockets(market: Market) -> AsyncIterator[Session]:
    async with client_at(PYTHON_BINANCE, "python_binance_sockets.py", market.url, market.socket_url) as session:
        yield session


async def test_bars(market: Market, rest: Session) -> None:
    for symbol in SYMBOLS:
        for interval in ("1s", "3m", "1h", "1d", "1w"):
            begin = BEGIN_MS + MINUTE
            rows = await rest.call("get_klines", symbol=symbol, interval=interval, startTime=begin, limit=200)
            end = min(begin + 200 * width_ms(interval), now_ms() + 1)
            bars = dense(await market.bars(symbol, interval), interval, begin, end)
            assert rows == [row(bar, interval) for bar in bars]
            assert rows


async def test_history_over_many_pages(market: Market, rest: Session) -> None:
    end = BEGIN_MS + 2500 * MINUTE
    # It asks for the oldest bar first, and begins there.
    rows = await rest.call("get_historical_klines", WIF, "1m", 1, end)
    assert rows == [row(bar, "1m") for bar in dense(await market.bars(WIF, "1m"), "1m", BEGIN_MS, end + 1)]
    assert len(rows) > 2000


async def test_trades_to_the_end(market: Market, rest: Session) -> None:
    stored = await market.trades(WIF)
    assert await rest.call("aggregate_trade_iter", WIF, start_str=BEGIN_MS) == in_rows(stored)
    assert await rest.call("aggregate_trade_iter", WIF, last_id=stored[600].trade_id) == in_rows(stored[601:])


async def test_what_there_is_to_trade(market: Market, rest: Session) -> None:
    info = await rest.call("get_exchange_info")
    assert sorted(one["symbol"] for one in info["symbols"]) == sorted(SYMBOLS)
    script = await rest.call("get_symbol_info", SCRIPT)
    assert (script["baseAsset"], script["quoteAsset"], script["status"]) == ("狗狗币", "USDC", "TRADING")
    assert script["filters"][0]["tickSize"] == "0.00000001"


async def test_tickers(market: Market, rest: Session) -> None:
    await market.trade_lately()
    for symbol in SYMBOLS:
        wanted = await day(market, symbol)
        ticker = await rest.call("get_ticker", symbol=symbol)
        assert {ours: Decimal(ticker[name]) for ours, name in DAY.items()} == {ours: wanted[ours] for ours in DAY}
        price = await rest.call("get_symbol_ticker", symbol=symbol)
        assert (price["symbol"], Decimal(price["price"])) == (symbol, wanted["last"])


async def test_a_refusal_has_its_number(rest: Session) -> None:
    with pytest.raises(Refused, match=r"-1121.*Invalid symbol") as refused:
        await rest.call("get_klines", symbol="NONE", interval="1m")
    assert refused.value.kind == "BinanceAPIException"


async def test_sockets(market: Market, sockets: Session) -> None:
    await sockets.call("trade_socket", TINY)
    await sockets.call("kline_socket", TINY, "1m")
    stored = await market.trade_now(TINY, 3)
    assert await told_trades(sockets, TINY, 3) == in_events(TINY, stored)
    await market.trade_now(TINY, 2)
    assert (await told_bar(market, sockets, TINY, "1m"))["k"]["x"] is False


async def test_a_second_closes_and_the_next_is_flat(market: Market, sockets: Session) -> None:
    await sockets.call("kline_socket", SCRIPT, "1s")
    await market.trade_now(SCRIPT, 5)
    (last,) = (await market.bars(SCRIPT, "1s"))[-1:]
    closed = await sockets.event(lambda one: one["k"]["x"] and bar_of(one).trades > 0)
    assert bar_of(closed) == last
    for step in (1, 2):
        empty = await sockets.event(lambda one: one["k"]["x"])
        assert bar_of(empty) == dense([last], "1s", 0, last.open_time + 3000)[step]


async def test_several_streams_on_one_socket(market: Market, sockets: Session) -> None:
    names = [f"{symbol.lower()}@trade" for symbol in SYMBOLS]
    await sockets.call("multiplex_socket", names)
    for symbol, name in zip(SYMBOLS, names, strict=True):
        (stored,) = in_events(symbol, await market.trade_now(symbol))
        told = await sockets.event()
        assert (told["stream"], of_event(told["data"])) == (name, stored)
