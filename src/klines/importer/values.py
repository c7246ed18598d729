"""The texts of a row as values: exactly, from their digits, never through a float.

Every function raises `BrokenRule` with the field and the rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import eq
from typing import Literal, get_args

from klines.importer.columns import MAKER_NAMES
from klines.models import Side
from klines.timestamp import TimeError, iso_us
from klines.trade_rules import BrokenRule

TimeUnit = Literal["s", "ms", "us", "ns", "iso"]
UNITS: tuple[TimeUnit, ...] = get_args(TimeUnit)
MAX_DIGITS = 40

_UNIT_OF_DIGITS: Mapping[int, TimeUnit] = {
    **dict.fromkeys((9, 10), "s"),
    **dict.fromkeys((12, 13), "ms"),
    **dict.fromkeys((15, 16), "us"),
    **dict.fromkeys((18, 19), "ns"),
}
_DIGITS_TO_US = {"s": 6, "ms": 3, "us": 0}
_US = {"s": 1_000_000, "ms": 1000, "us": 1}

_SIDES: Mapping[str, Side] = {"buy": "buy", "b": "buy", "sell": "sell", "s": "sell"}
# The maker bought: so the taker sold.
_MAKER_SIDES: Mapping[str, Side] = {"true": "sell", "1": "sell", "false": "buy", "0": "buy"}


def trade_id_of(text: str) -> int:
    """A trade's number, written in one way only: two spellings of one identity would be two trades elsewhere."""
    if _digits(text) and (text == "0" or text[0] != "0"):
        return int(text)
    raise BrokenRule("trade_id", "must be a whole number in plain digits, without a sign or leading zeros")


def trade_ids_of(texts: Sequence[str]) -> list[int]:
    """The numbers of many trades."""
    ids = _plain_numbers(texts)
    return [trade_id_of(text) for text in texts] if ids is None else ids


class SideColumn:
    """The sides of one column; what `true` means there depends on its name."""

    def __init__(self, column: str) -> None:
        maker = column.lower() in MAKER_NAMES
        self._sides = _MAKER_SIDES if maker else _SIDES
        self._rule = "must be true, false, 1 or 0" if maker else "must be buy, b, sell or s"

    def side(self, text: str) -> Side:
        """The taker's side."""
        side = self._sides.get(text) or self._sides.get(text.lower())
        if side is None:
            raise BrokenRule("side", self._rule)
        return side

    def sides(self, texts: Sequence[str]) -> list[Side]:
        """The takers' sides."""
        known = {text: self.side(text) for text in set(texts)}
        return [known[text] for text in texts]


class TimeColumn:
    """The times of one column, all in one unit: the one given, else the name's suffix, else that of the first time."""

    def __init__(self, column: str, unit: TimeUnit | None) -> None:
        suffix = column.lower().rpartition("_")
        self._unit = unit or next((known for known in UNITS[:4] if suffix[1:] == ("_", known)), None)

    def us(self, text: str) -> int:
        """Epoch microseconds, cut."""
        if self._unit is None:
            self._unit = _guessed(text)
        if self._unit == "iso":
            try:
                return iso_us(text)
            except TimeError as error:
                raise BrokenRule("time", str(error)) from None
        return _cut(text, self._unit)

    def all_us(self, texts: Sequence[str]) -> list[int]:
        """Epoch microseconds of many times."""
        first = self.us(texts[0])
        factor = _US.get(self._unit or "")
        if factor is None or (numbers := _plain_numbers(texts)) is None:
            return [first, *map(self.us, texts[1:])]
        return [number * factor for number in numbers]


def _guessed(text: str) -> TimeUnit:
    if "-" in text[1:] or ":" in text:
        return "iso"
    whole = text.partition(".")[0]
    unit = _UNIT_OF_DIGITS.get(len(whole)) if _digits(whole) else None
    if unit is None:
        raise BrokenRule("time", "has no unit that can be told from its digits: give --time-unit")
    return unit


def _cut(text: str, unit: TimeUnit) -> int:
    whole, point, fraction = text.partition(".")
    if not _digits(whole) or (point and not (fraction.isdigit() and fraction.isascii())):
        raise BrokenRule("time", f"must be a number in {unit}, in plain digits")
    if unit == "ns":
        return int(whole) // 1000
    digits = _DIGITS_TO_US[unit]
    return int(whole + fraction[:digits].ljust(digits, "0"))


def _plain_numbers(texts: Sequence[str]) -> list[int] | None:
    """The numbers, if each is written as it would be written again: digits, and no other zero before them."""
    if max(map(len, texts)) > MAX_DIGITS:
        return None
    try:
        numbers = list(map(int, texts))
    except ValueError:
        return None
    return numbers if all(map(eq, map(str, numbers), texts)) and min(numbers) >= 0 else None


def _digits(text: str) -> bool:
    return text.isdigit() and text.isascii() and len(text) <= MAX_DIGITS
