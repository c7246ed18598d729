"""What bars must be, said once more and independently: a fold over trades in Decimal, without SQL."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from klines.models import Trade

SECONDS = {"1s": 1, "1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "1d": 86400}
# Some that are made of stored ones, of each kind: in seconds, across a stored one, longer than a day.
MADE = ("7s", "45s", "90m", "36h", "1w")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
MONDAY = 345_600  # 1970-01-05, in epoch seconds


class Bar(NamedTuple):
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    quote_volume: Decimal
    trades: int
    buy_volume: Decimal
    buy_quote_volume: Decimal
    first_trade_id: int
    last_trade_id: int


def stored(tape: Iterable[Trade]) -> list[Trade]:
    """The trades that a database keeps of a tape: of one identity the first."""
    kept: dict[tuple[str, int, int], Trade] = {}
    for trade in tape:
        kept.setdefault((trade.symbol, trade.trade_id, trade.time_us), trade)
    return list(kept.values())


def seconds(interval: str) -> int:
    """The width of an interval, stored or not."""
    return int(interval[:-1]) * UNITS[interval[-1]]


def opens(interval: str, time_us: int) -> int:
    """The open time of a bucket, in epoch microseconds; weeks begin on Mondays."""
    width = seconds(interval) * 1_000_000
    origin = MONDAY * 1_000_000 if interval == "1w" else 0
    return (time_us - origin) // width * width + origin


def fold(trades: Iterable[Trade], interval: str) -> dict[int, Bar]:
    """Bars by open time in epoch microseconds."""
    buckets: dict[int, list[Trade]] = {}
    for trade in sorted(trades, key=lambda trade: (trade.time_us, trade.trade_id)):
        buckets.setdefault(opens(interval, trade.time_us), []).append(trade)
    return {opened: _bar(inside) for opened, inside in sorted(buckets.items())}


def _bar(trades: list[Trade]) -> Bar:
    prices = [Decimal(trade.price) for trade in trades]
    amounts = [Decimal(trade.amount) for trade in trades]
    bought = [trade.side == "buy" for trade in trades]
    return Bar(
        open=prices[0],
        high=max(prices),
        low=min(prices),
        close=prices[-1],
        volume=sum(amounts, Decimal(0)),
        quote_volume=_sum(zip(prices, amounts, strict=True)),
        trades=len(trades),
        buy_volume=sum((amount for amount, buy in zip(amounts, bought, strict=True) if buy), Decimal(0)),
        buy_quote_volume=_sum(pair for pair, buy in zip(zip(prices, amounts, strict=True), bought, strict=True) if buy),
        first_trade_id=trades[0].trade_id,
        last_trade_id=trades[-1].trade_id,
    )


def _sum(pairs: Iterable[tuple[Decimal, Decimal]]) -> Decimal:
    return sum((price * amount for price, amount in pairs), Decimal(0))
