"""The values that travel between the layers: frozen, without behaviour."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta

Side = Literal["buy", "sell"]


class Trade(NamedTuple):
    """One trade as it is stored. `side` is the taker's.

    `symbol` is canonical (`klines.symbol`), `time_us` is epoch microseconds UTC, `price` (quote per base) and
    `amount` (base) are exact decimal text (`klines.exact`).
    """

    symbol: str
    trade_id: int
    time_us: int
    price: str
    amount: str
    side: Side


class TradeColumns(msgspec.Struct, frozen=True):
    """The trades of a batch, kept by column, each as the field of `Trade`; all are of one length."""

    symbols: list[str]
    trade_ids: list[int]
    times_us: list[int]
    prices: list[str]
    amounts: list[str]
    sides: list[Side]

    def __len__(self) -> int:
        return len(self.symbols)

    def __iter__(self) -> Iterator[Trade]:
        return map(Trade, self.symbols, self.trade_ids, self.times_us, self.prices, self.amounts, self.sides)


def columns_of(trades: TradeColumns | Sequence[Trade]) -> TradeColumns:
    """The same trades by column."""
    if isinstance(trades, TradeColumns):
        return trades
    return TradeColumns(*map(list, zip(*trades, strict=True))) if trades else TradeColumns([], [], [], [], [], [])


class Receipt(msgspec.Struct, frozen=True):
    """What became of a batch: `received = inserted + duplicates + conflicts`.

    A duplicate repeats a stored trade; a conflict has a stored trade's identity and other content, and was dropped.
    """

    received: int
    inserted: int
    duplicates: int
    conflicts: int

    def __add__(self, other: Receipt) -> Receipt:
        return Receipt(
            self.received + other.received,
            self.inserted + other.inserted,
            self.duplicates + other.duplicates,
            self.conflicts + other.conflicts,
        )


class TokenFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a platform may tell of a token; `supply` is decimal text, `metadata` any JSON object up to 8 KiB."""

    name: Annotated[str, Meta(max_length=128)] | None = None
    base: Annotated[str, Meta(max_length=32)] | None = None
    quote: Annotated[str, Meta(max_length=32)] | None = None
    decimals: Annotated[int, Meta(ge=0, le=36)] | None = None
    supply: str | None = None
    metadata: dict[str, Any] = {}


class Token(msgspec.Struct, frozen=True):
    """A token and its last 24 hours; decimals are text, times epoch milliseconds, the last trade's None without one."""

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
