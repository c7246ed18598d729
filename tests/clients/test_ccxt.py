"""ccxt by REST: markets, bars, trades, tickers and the clock, as they stand in the database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from tests.clients.environments import CCXT
from tests.clients.market import (
    BARE,
    BEGIN_MS,
    HOUR,
    MINUTE,
    SCRIPT,
    TINY,
    WIF,
    Bar,
    Market,
    Taken,
    dense,
    now_ms,
    width_ms,
)
from tests.clients.session import Refused, Session, client_at

pytestmark = pytest.mark.clients(CCXT)

NAMES = {WIF: "WIFHAT/USDC", TINY: "PEPEWEI/USDC", BARE: "MOON/XXX", SCRIPT: "狗狗币/USDC"}


@pytest.fixture
async def ccxt(market: Market) -> AsyncIterator[Session]:
    async with client_at(CCXT, "ccxt_rest.py", market.url, "exact") as session:
        yield session


async def test_markets(ccxt: Session) -> None:
    markets = await ccxt.call("load_markets")
    assert {name: market["id"] for name, market in markets.items()} == {name: id_ for id_, name in NAMES.items()}
    assert all(market["active"] and market["spot"] for market in markets.values())
    precise = {market["id"]: market["precision"]["price"] for market in markets.values()}
    assert precise[TINY] == "0.00000000000001"
    assert precise[WIF] == "0.00000001"


DAY = ("last", "open", "high", "low", "baseVolume", "quoteVolume", "change")
INTERVALS = ("1s", "1m", "15m", "45s", "3m", "2h", "1d", "1w")


@pytest.mark.parametrize("symbol", NAMES)
async def test_bars(market: Market, ccxt: Session, symbol: str) -> None:
    for interval in INTERVALS:
        rows = await ccxt.call("fetch_ohlcv", NAMES[symbol], interval, since=BEGIN_MS + 1, limit=300)
        bars = await market.bars(symbol, interval)
        end_ms = min(BEGIN_MS + 1 + 300 * width_ms(interval), now_ms() + 1)
        assert rows == short(dense(bars, interval, BEGIN_MS + 1, end_ms))
        assert len(rows) > 100


async def test_the_latest_bars(market: Market, ccxt: Session) -> None:
    await market.trade_lately()
    for interval in ("1s", "5m", "1d"):
        rows = await ccxt.call("fetch_ohlcv", NAMES[WIF], interval, limit=20)
        assert rows == short(dense(await market.bars(WIF, interval), interval, rows[0][0], rows[-1][0] + 1))
        assert len(rows) == 20
        assert 0 <= now_ms() - rows[-1][0] < width_ms(interval) + 2000


async def test_bars_over_many_pages(market: Market, ccxt: Session) -> None:
    end = BEGIN_MS + 2500 * MINUTE
    parameters = {"paginate": True, "until": end, "paginationCalls": 5}
    rows = await ccxt.call("fetch_ohlcv", NAMES[WIF], "1m", since=BEGIN_MS, params=parameters)
    assert rows == short(dense(await market.bars(WIF, "1m"), "1m", BEGIN_MS, end + 1))
    assert len(rows) > 2000


async def test_trades(market: Market, ccxt: Session) -> None:
    for symbol, name in NAMES.items():
        stored = await market.trades(symbol)
        latest = await ccxt.call("fetch_trades", name, limit=50)
        assert [told(one) for one in latest] == in_its_order(stored[-50:])
        since = BEGIN_MS + 5 * MINUTE
        hour = [one for one in stored if since <= one.time_us // 1000 <= since + HOUR]
        assert [told(one) for one in await ccxt.call("fetch_trades", name, since=since)] == in_its_order(hour)
        assert len(hour) > 30


async def test_tickers(market: Market, ccxt: Session) -> None:
    await market.trade_lately()
    tickers = await ccxt.call("fetch_tickers")
    assert set(tickers) == set(NAMES.values())
    for symbol, name in NAMES.items():
        for ticker in (tickers[name], await ccxt.call("fetch_ticker", name)):
            assert day_of(ticker) == await day(market, symbol)
            assert (ticker["bid"], ticker["bidVolume"]) == (ticker["last"], "0")


async def test_the_clock(ccxt: Session) -> None:
    before = now_ms()
    assert before <= await ccxt.call("fetch_time") <= now_ms()


async def test_refusals_are_the_clients_own_errors(ccxt: Session) -> None:
    for arguments, kind in ((["NONE/SUCH"], "BadSymbol"), ([NAMES[WIF], "1M"], "BadRequest")):
        with pytest.raises(Refused) as refused:
            await ccxt.call("fetch_ohlcv", *arguments)
        assert refused.value.kind == kind
    await ccxt.call("load_markets")
    with pytest.raises(Refused, match="Invalid symbol") as refused:
        await ccxt.call("publicGetKlines", {"symbol": "NONE", "interval": "1m"})
    assert refused.value.kind == "BadSymbol"


def short(bars: list[Bar]) -> list[list[Any]]:
    """Bars as ccxt has them: its numbers are the text that they came as."""
    return [list(bar[:6]) for bar in bars]


def in_its_order(trades: list[Taken]) -> list[tuple[Any, ...]]:
    """Trades as ccxt has them: those of one millisecond by their ids, as it knows no microseconds."""
    return [shown(one) for one in sorted(trades, key=lambda one: (one.time_us // 1000, one.trade_id))]


def shown(trade: Taken) -> tuple[Any, ...]:
    return (str(trade.trade_id), trade.time_us // 1000, trade.price, trade.amount, trade.side)


def told(trade: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(trade[name] for name in ("id", "timestamp", "price", "amount", "side"))


async def day(market: Market, symbol: str) -> dict[str, Decimal]:
    """The last 24 hours from the bars of seconds, of which all are recent or years old."""
    bars = [bar for bar in await market.bars(symbol, "1s") if bar.open_time > now_ms() - 24 * HOUR]
    return {
        "last": Decimal(bars[-1].close),
        "open": Decimal(bars[0].open),
        "high": max(Decimal(bar.high) for bar in bars),
        "low": min(Decimal(bar.low) for bar in bars),
        "baseVolume": sum((Decimal(bar.volume) for bar in bars), Decimal(0)),
        "quoteVolume": sum((Decimal(bar.quote_volume) for bar in bars), Decimal(0)),
        "change": Decimal(bars[-1].close) - Decimal(bars[0].open),
    }


def day_of(ticker: dict[str, Any], names: Sequence[str] = DAY) -> dict[str, Decimal]:
    return {name: Decimal(ticker[name]) for name in names}
