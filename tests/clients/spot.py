"""What Binance's REST and streams say, brought into the shape of what the database says (`tests/clients/market.py`)."""

from __future__ import annotations

from typing import Any

from tests.clients.market import Bar, Market, Taken, now_ms
from tests.clients.session import Session


def in_rows(trades: list[Taken]) -> list[dict[str, Any]]:
    """Trades as `/api/v3/aggTrades` has them."""
    return [
        {
            **{"a": one.trade_id, "p": one.price, "q": one.amount, "f": one.trade_id, "l": one.trade_id},
            **{"T": one.time_us // 1000, "m": one.side == "sell", "M": True},
        }
        for one in trades
    ]


def in_events(symbol: str, trades: list[Taken]) -> list[dict[str, Any]]:
    """Trades as the stream `trade` has them, without the moment of the event."""
    return [
        {
            **{"e": "trade", "s": symbol, "t": one.trade_id, "p": one.price, "q": one.amount},
            **{"T": one.time_us // 1000, "m": one.side == "sell", "M": True},
        }
        for one in trades
    ]


def of_event(event: dict[str, Any]) -> dict[str, Any]:
    """A trade event without its own moment, which must be a recent one."""
    assert abs(now_ms() - event["E"]) < 10_000
    return {name: value for name, value in event.items() if name != "E"}


def bar_of(event: dict[str, Any]) -> Bar:
    """The bar in a kline event."""
    kline = event["k"]
    return Bar(*(kline[name] for name in ("t", "o", "h", "l", "c", "v", "q", "n", "V", "Q")))


async def told_bar(market: Market, session: Session, symbol: str, interval: str) -> dict[str, Any]:
    """The first kline event that is the last bar of the database."""

    async def is_last(event: dict[str, Any]) -> bool:
        return bar_of(event) == (await market.bars(symbol, interval))[-1]

    while not await is_last(event := await session.event(lambda one: one.get("e") == "kline" and one["s"] == symbol)):
        assert event["k"]["i"] == interval
    return dict(event)


async def told_trades(session: Session, symbol: str, count: int) -> list[dict[str, Any]]:
    """The next so many trade events of a token."""
    found = []
    for _ in range(count):
        found.append(of_event(await session.event(lambda one: one.get("e") == "trade" and one["s"] == symbol)))
    return found
