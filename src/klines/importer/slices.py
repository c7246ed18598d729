"""Checked trades as the slices that an import stores, each one row of text for COPY: its columns are arrays.

Slices follow the order of the file. It is good enough to store them in if trades come as they became known: none a
minute later than the newest before its slice, and no slice over more days than one transaction may lock chunks for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import compress
from zlib import crc32

from klines.models import TradeColumns

LATE_US = 60_000_000
DAY_US = 86_400_000_000
SLICE_DAYS = 100
MAX_PLACED = 100_000

COLUMNS = ("slice", "earliest", "latest", "symbols", "trade_ids", "times_us", "prices", "amounts", "sides")


class Shares:
    """Divides trades by their tokens into `count` shares of about one size; a token's trades all are in one share.

    A token goes where the fewest trades are when it is first seen, the busiest ones of a batch before the others.
    Beyond `MAX_PLACED` of them, which are remembered, a checksum of the symbol decides.
    """

    def __init__(self, count: int) -> None:
        self._trades = [0] * count
        self._placed: dict[str, int] = {}

    def divided(self, batch: TradeColumns) -> list[TradeColumns]:
        """The trades of each share, in the order of the batch."""
        symbols: list[set[str]] = [set() for _ in self._trades]
        for symbol, trades in Counter(batch.symbols).most_common():
            share = self._share_of(symbol)
            self._trades[share] += trades
            symbols[share].add(symbol)
        return [_kept(batch, list(map(chosen.__contains__, batch.symbols))) for chosen in symbols]

    def _share_of(self, symbol: str) -> int:
        share = self._placed.get(symbol)
        if share is None:
            if len(self._placed) >= MAX_PLACED:
                return crc32(symbol.encode()) % len(self._trades)
            share = self._placed[symbol] = self._trades.index(min(self._trades))
        return share


class Slices:
    """Cuts batches into slices of `rows` trades; `in_order` says whether these can be stored one after the other."""

    def __init__(self, rows: int) -> None:
        self.in_order = True
        self._rows = rows
        self._count = 0
        self._newest = 0
        self._held = TradeColumns([], [], [], [], [], [])

    def take(self, batch: TradeColumns) -> Iterator[str]:
        """The rows of the slices that this batch completes."""
        held = self._held
        for column, more in zip(_lists(held), _lists(batch), strict=True):
            column.extend(more)
        start = 0
        while start + self._rows <= len(held):
            yield self._row(_part(held, start, start + self._rows))
            start += self._rows
        self._held = _part(held, start, len(held))

    def rest(self) -> Iterator[str]:
        """The row of the last slice, if there is one."""
        if len(self._held):
            yield self._row(self._held)

    def _row(self, trades: TradeColumns) -> str:
        earliest, latest = min(trades.times_us), max(trades.times_us)
        near = earliest >= self._newest - LATE_US and latest - earliest < SLICE_DAYS * DAY_US
        self.in_order = self.in_order and near
        self._newest = max(self._newest, latest)
        self._count += 1
        # No symbol has a slash or a backslash in it, and the rest is digits, points and the two sides.
        arrays = [f"{{{','.join(map(str, column))}}}" for column in _lists(trades)[1:]]
        return "\t".join([str(self._count), str(earliest), str(latest), "/".join(trades.symbols), *arrays]) + "\n"


def _lists(trades: TradeColumns) -> list[list[object]]:
    return [getattr(trades, name) for name in trades.__struct_fields__]


def _part(trades: TradeColumns, start: int, end: int) -> TradeColumns:
    return TradeColumns(*(column[start:end] for column in _lists(trades)))  # type: ignore[arg-type]


def _kept(trades: TradeColumns, which: list[bool]) -> TradeColumns:
    return TradeColumns(*(list(compress(column, which)) for column in _lists(trades)))  # type: ignore[arg-type]
