"""The shapes that routes answer with, for the OpenAPI document and its clients. Decimals are fixed-point text."""

from __future__ import annotations

import msgspec

from klines.models import Side, Token


class Kline(msgspec.Struct, omit_defaults=True):
    """One bar. Times are epoch milliseconds; prices are null in a bar filled with `fill=null`."""

    open_time: int
    close_time: int
    open: str | None
    high: str | None
    low: str | None
    close: str | None
    volume: str
    quote_volume: str
    trades: int
    buy_volume: str
    buy_quote_volume: str
    first_trade_id: int | None
    last_trade_id: int | None
    closed: bool
    filled: bool = False


class KlinesAnswer(msgspec.Struct):
    """Bars of one token and interval, ascending."""

    symbol: str
    interval: str
    klines: list[Kline]


class StoredTrade(msgspec.Struct):
    """One stored trade; `time` is epoch milliseconds, `time_us` the same moment in microseconds."""

    trade_id: int
    time: int
    time_us: int
    price: str
    amount: str
    side: Side


class TradesAnswer(msgspec.Struct):
    """Trades of one token, ascending by (time, trade_id)."""

    symbol: str
    trades: list[StoredTrade]


class TokensAnswer(msgspec.Struct):
    """One page of tokens."""

    tokens: list[Token]
