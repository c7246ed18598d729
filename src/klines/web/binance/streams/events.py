"""Binance's events, made of native bars and trades. Pure.

Source: "WebSocket Streams for Binance"; fields and their order are its. Decimals pass through as they are, times are
multiplied from milliseconds where microseconds are asked for. `M`, `B` and the like are Binance's own "ignore".
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from klines.interval import Width
from klines.web.binance.streams.batch import MILLISECONDS, Batch, now
from klines.web.binance.streams.dense import Told
from klines.web.binance.streams.native import Row


class Kline(msgspec.Struct):
    """`k` of a kline event."""

    t: int
    T: int
    s: str
    i: str
    f: int
    L: int
    o: str
    c: str
    h: str
    l: str  # noqa: E741 - Binance's name
    v: str
    n: int
    x: bool
    q: str
    V: str
    Q: str
    B: str = "0"


class KlineEvent(msgspec.Struct):
    """`<symbol>@kline_<interval>`."""

    e: str
    E: int
    s: str
    k: Kline


class TradeEvent(msgspec.Struct):
    """`<symbol>@trade`; `m`: the buyer is the maker, so the taker sold."""

    e: str
    E: int
    s: str
    t: int
    p: str
    q: str
    T: int
    m: bool
    M: bool = True


class AggTradeEvent(msgspec.Struct):
    """`<symbol>@aggTrade`: here every trade is an aggregate of its own."""

    e: str
    E: int
    s: str
    a: int
    p: str
    q: str
    f: int
    l: int  # noqa: E741 - Binance's name
    T: int
    m: bool
    M: bool = True


class BookTickerEvent(msgspec.Struct):
    """`<symbol>@bookTicker`: without an order book, the last price on both sides and nothing to be had at it."""

    u: int
    s: str
    b: str
    B: str
    a: str
    A: str


_encode = msgspec.json.Encoder().encode


def klines(symbol: str, width: Width, told: Sequence[Told]) -> Batch:
    """A kline event per bar."""
    return Batch(lambda per_ms: [_encode(_kline(symbol, width, one, per_ms)) for one in told])


def trades(symbol: str, rows: Sequence[Row]) -> Batch:
    """A trade event per trade."""

    def event(row: Row, per_ms: int) -> TradeEvent:
        sold = row.side == "sell"
        time = _time(row, per_ms)
        return TradeEvent("trade", now(per_ms), symbol, row.trade_id, row.price, row.amount, time, sold)

    return Batch(lambda per_ms: [_encode(event(row, per_ms)) for row in rows])


def agg_trades(symbol: str, rows: Sequence[Row]) -> Batch:
    """An aggTrade event per trade."""

    def event(row: Row, per_ms: int) -> AggTradeEvent:
        number, sold = row.trade_id, row.side == "sell"
        time = _time(row, per_ms)
        return AggTradeEvent("aggTrade", now(per_ms), symbol, number, row.price, row.amount, number, number, time, sold)

    return Batch(lambda per_ms: [_encode(event(row, per_ms)) for row in rows])


def book_ticker(symbol: str, price: str, update: int) -> Batch:
    """One bookTicker event; `update` grows."""
    return Batch(lambda _: [_encode(BookTickerEvent(update, symbol, price, "0", price, "0"))])


def _kline(symbol: str, width: Width, told: Told, per_ms: int) -> KlineEvent:
    bar, closed = told
    begin, end = bar.open_time * per_ms, (bar.close_time + 1) * per_ms - 1
    return KlineEvent(
        "kline",
        now(per_ms),
        symbol,
        Kline(
            begin,
            end,
            symbol,
            width.name,
            bar.first_trade_id,
            bar.last_trade_id,
            bar.open,
            bar.close,
            bar.high,
            bar.low,
            bar.volume,
            bar.trades,
            closed,
            bar.quote_volume,
            bar.buy_volume,
            bar.buy_quote_volume,
        ),
    )


def _time(row: Row, per_ms: int) -> int:
    return row.time_us // 1000 if per_ms == MILLISECONDS else row.time_us
