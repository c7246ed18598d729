"""The bad rows of a file: all are counted, the first ones are named."""

from __future__ import annotations

from typing import NamedTuple

from klines.errors import MAX_REPORTED_ITEMS, InvalidItems, ItemError, echo


class Fault(NamedTuple):
    """What is wrong with one row; `column` and its `value` where one column is at fault."""

    rule: str
    column: str | None = None
    value: str = ""


class Faults:
    """What was found in one file; `first` names at most `MAX_REPORTED_ITEMS` rows as `FILE:LINE` and `column: rule`."""

    def __init__(self, file: str) -> None:
        self.count = 0
        self.first: list[ItemError] = []
        self._file = file

    def add(self, line: int, fault: Fault) -> None:
        """One bad row."""
        self.count += 1
        if len(self.first) < MAX_REPORTED_ITEMS:
            rule, column, value = fault
            shown = rule if column is None else f"{_plain(column)}: {rule} (here {echo(value)})"
            self.first.append(ItemError(f"{self._file}:{line}", shown))

    @property
    def full(self) -> bool:
        """True when further rows would not be named."""
        return len(self.first) == MAX_REPORTED_ITEMS

    def error(self) -> InvalidItems:
        """The refusal of the whole file."""
        first = self.first[0]
        detail = f"{first.loc}: {first.msg}; nothing was stored"
        return InvalidItems(detail, code="trade_invalid", errors=tuple(self.first))


def _plain(column: str) -> str:
    shown = echo(column)
    return column if shown == f"'{column}'" else shown
