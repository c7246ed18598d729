"""The shapes that routes answer with, for the OpenAPI document and its clients. Decimals are fixed-point text."""

from __future__ import annotations

from typing import Any

import msgspec

from klines.models import Side


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


class Token(msgspec.Struct):
    """A token and its last 24 hours; what the last trade would tell is null without one."""

    symbol: str
    name: str | None
    base: str | None
    quote: str | None
    decimals: int | None
    supply: str | None
    metadata: dict[str, Any]
    created_at: int
    last_price: str | None
    last_trade_time: int | None
    price_change_24h: str | None
    price_change_percent_24h: str | None
    high_24h: str | None
    low_24h: str | None
    volume_24h: str
    quote_volume_24h: str
    trades_24h: int


class TokensAnswer(msgspec.Struct):
    """One page of tokens."""

    tokens: list[Token]
