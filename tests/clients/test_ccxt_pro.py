"""ccxt.pro by WebSocket: bars, trades and tickers as they are stored while the client watches."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.clients.environments import CCXT
from tests.clients.market import BARE, SCRIPT, TINY, WIF, Market
from tests.clients.session import Refused, Session, client_at
from tests.clients.test_ccxt import NAMES, day, day_of, shown, told

pytestmark = pytest.mark.clients(CCXT)

MINI = ("last", "open", "high", "low", "baseVolume", "quoteVolume")


@pytest.fixture
async def pro(market: Market) -> AsyncIterator[Session]:
    async with client_at(CCXT, "ccxt_pro.py", market.url, market.socket_url) as session:
        await session.call("load_markets")
        yield session


async def test_bars(market: Market, pro: Session) -> None:
    for symbol, interval in ((WIF, "1m"), (TINY, "1s"), (SCRIPT, "1d"), (BARE, "3m")):
        for attempt in range(20):
            watching = await pro.begin("watch_ohlcv", NAMES[symbol], interval)
            if attempt == 0:
                await pro.event()
            await market.trade_now(symbol, 3)
            # A bucket may begin in between, and be what is told instead.
            seen = await pro.answer(watching)
            last = (await market.bars(symbol, interval))[-1]
            if seen[-1] == [last.open_time, *map(float, last[1:6])]:
                break
        else:
            pytest.fail(f"the bar was not told: {seen}")


@pytest.mark.parametrize("symbol", [WIF, TINY, BARE, SCRIPT])
async def test_trades(market: Market, pro: Session, symbol: str) -> None:
    watching = await pro.begin("watch_trades", NAMES[symbol])
    await pro.event()
    stored, seen = [], []
    for count in (1, 7, 1):
        # What comes when nobody waits, the client tells together with the next.
        stored += await market.trade_now(symbol, count)
        seen += await pro.answer(watching)
        watching = await pro.begin("watch_trades", NAMES[symbol])
    assert [told(one) for one in seen] == [shown(one) for one in stored]


async def test_tickers(market: Market, pro: Session) -> None:
    await market.trade_lately()
    watching = await pro.begin("watch_ticker", NAMES[TINY])
    await pro.event()
    await market.trade_now(TINY, 5)
    # A mini ticker has no change.
    assert day_of(await pro.answer(watching), MINI) == {name: (await day(market, TINY))[name] for name in MINI}


async def test_several_tokens_on_one_socket(market: Market, pro: Session) -> None:
    symbols = (WIF, TINY, SCRIPT, BARE)
    for turn, symbol in enumerate((*symbols, *symbols)):
        watching = await pro.begin("watch_trades_for_symbols", [NAMES[symbol] for symbol in symbols])
        if turn == 0:
            await pro.event()
        stored = await market.trade_now(symbol)
        (seen,) = await pro.answer(watching)
        assert (seen["symbol"], told(seen)) == (NAMES[symbol], shown(stored[0]))
    assert len(await pro.call("sockets")) == 1


async def test_what_is_no_longer_watched_is_not_told(market: Market, pro: Session) -> None:
    gone = await pro.begin("watch_trades", NAMES[WIF])
    await pro.event()
    await pro.call("un_watch_trades", NAMES[WIF])
    await pro.event()
    with pytest.raises(Refused) as refused:
        await pro.answer(gone)
    assert refused.value.kind == "UnsubscribeError"
    await market.trade_now(WIF, 2)
    again = await pro.begin("watch_trades", NAMES[WIF])
    await pro.event()
    stored = await market.trade_now(WIF)
    assert [told(one) for one in await pro.answer(again)] == [shown(one) for one in stored]


async def test_an_interval_that_there_is_none_of(pro: Session) -> None:
    with pytest.raises(Refused, match="1M"):
        await pro.call("watch_ohlcv", NAMES[WIF], "1M")
