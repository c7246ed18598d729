"""What a trade must be before it may be stored, whoever brings it: one place for the rules of every entrance."""

from __future__ import annotations

import time
from typing import cast, get_args

import msgspec

from klines.errors import InvalidSymbol
from klines.exact import InexactError, are_decimal_texts, decimal_text
from klines.models import Side, Trade, TradeColumns
from klines.symbol import canonical_symbol
from klines.timestamp import EARLIEST_US, LATEST_US

MAX_TRADE_ID = 2**63 - 1
SIDES: frozenset[str] = frozenset(get_args(Side))


class BrokenRule(ValueError):
    """One field of one trade breaks a rule; `field` and `rule` name them."""

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field}: {rule}")
        self.field = field
        self.rule = rule


class TradeRules:
    """The rules at one moment, for one batch: `latest_us` is the newest time a trade may have."""

    def __init__(self, max_future_seconds: int) -> None:
        self.max_future_seconds = max_future_seconds
        self.latest_us = min(time.time_ns() // 1000 + max_future_seconds * 1_000_000, LATEST_US)
        self._symbols: dict[str, str] = {}

    def trade(self, symbol: str, trade_id: int, time_us: int, price: str, amount: str, side: str) -> Trade:
        """The trade in its stored form; raises `BrokenRule`."""
        if not 0 <= trade_id <= MAX_TRADE_ID:
            raise BrokenRule("trade_id", "must be between 0 and 2^63 - 1")
        if not EARLIEST_US <= time_us <= self.latest_us:
            raise BrokenRule("time", self._time_rule(time_us))
        if side not in SIDES:
            raise BrokenRule("side", "must be buy or sell")
        return Trade(
            self._symbol(symbol),
            trade_id,
            time_us,
            _decimal("price", price),
            _decimal("amount", amount),
            cast(Side, side),
        )

    def columns(self, given: TradeColumns) -> TradeColumns | None:
        """Many trades at once, in their stored form; None where `trade` has to look at each, and to say what is wrong.

        That is where a rule is broken, and where a decimal is written in another way than it is stored.
        """
        if not (
            given.symbols
            and min(given.trade_ids) >= 0
            and max(given.trade_ids) <= MAX_TRADE_ID
            and min(given.times_us) >= EARLIEST_US
            and max(given.times_us) <= self.latest_us
            and SIDES.issuperset(given.sides)
            and are_decimal_texts(given.prices)
            and are_decimal_texts(given.amounts)
        ):
            return None
        try:
            canonical = {symbol: self._symbol(symbol) for symbol in set(given.symbols)}
        except BrokenRule:
            return None
        return msgspec.structs.replace(given, symbols=[canonical[symbol] for symbol in given.symbols])

    def _symbol(self, symbol: str) -> str:
        known = self._symbols.get(symbol)
        if known is None:
            try:
                known = self._symbols[symbol] = canonical_symbol(symbol)
            except InvalidSymbol as error:
                raise BrokenRule("symbol", error.detail.partition(": ")[2]) from None
        return known

    def _time_rule(self, time_us: int) -> str:
        if time_us < EARLIEST_US:
            return "must not be before 2009: is the unit right?"
        if time_us > LATEST_US:
            return "must be before 2200: is the unit right?"
        return f"must not lie more than {self.max_future_seconds} s in the future"


def _decimal(field: str, text: str) -> str:
    try:
        return decimal_text(text)
    except InexactError as error:
        raise BrokenRule(field, str(error)) from None
