"""The messages of the native streams as this layer reads them, decoded once each. Pure."""

from __future__ import annotations

import msgspec

from klines.models import Side


class Bar(msgspec.Struct, frozen=True):
    """A bar as REST shows it: times in epoch milliseconds, decimals as text. One without trades has the ids -1."""

    open_time: int
    close_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    buy_volume: str
    buy_quote_volume: str
    first_trade_id: int
    last_trade_id: int


class Row(msgspec.Struct, frozen=True):
    """A trade as REST shows it; `time_us` is epoch microseconds, `side` the taker's."""

    trade_id: int
    time_us: int
    price: str
    amount: str
    side: Side


class Message(msgspec.Struct, frozen=True):
    """Any message of a stream; what a type does not have is empty."""

    type: str
    cursor: str | None = None
    recovered: bool | None = None
    kline: Bar | None = None
    klines: list[Bar] = []
    trades: list[Row] = []


decode = msgspec.json.Decoder(Message).decode
