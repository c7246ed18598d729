"""A file of trades, read once: batches of checked trades, and what was wrong with the other rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from klines.importer.columns import FIELDS, map_columns
from klines.importer.faults import Faults
from klines.importer.rows import Format, Row, open_rows
from klines.importer.source import Source, open_source, refusal
from klines.importer.values import SideColumn, TimeColumn, TimeUnit, trade_id_of
from klines.models import Trade
from klines.symbol import canonical_symbol
from klines.trade_rules import BrokenRule, TradeRules

BATCH_ROWS = 4096


class ReadOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How to read a file; None is a guess. `columns` is `{field: column}`, `symbol` that of every row."""

    form: Format | None = None
    delimiter: str | None = None
    columns: Mapping[str, str] = {}
    symbol: str | None = None
    time_unit: TimeUnit | None = None
    skip_invalid: bool = False
    max_future_seconds: int = 60


class Batch(NamedTuple):
    """Trades with the line of each, in the order of the file.

    `rows` counts the bad ones too; `share` is how much of the file has been read by now.
    """

    lines: list[int]
    trades: list[Trade]
    rows: int
    share: float


@contextmanager
def open_trades(path: Path, options: ReadOptions) -> Iterator[TradeFile]:
    """The file at `path`, its header read and its columns found; raises `BadRequest`."""
    with open_source(path) as source:
        yield TradeFile(source, options)


class TradeFile:
    """One pass over the trades of a file; `faults` grows while it is read."""

    def __init__(self, source: Source, options: ReadOptions) -> None:
        symbol = None if options.symbol is None else canonical_symbol(options.symbol)
        self._source = source
        self._options = options
        self._given = () if symbol is None else (symbol,)
        self._rows = open_rows(source, options.form, options.delimiter)
        self._columns = map_columns(self._rows.names, options.columns, symbol_given=symbol is not None)
        self._time = TimeColumn(self._columns["time"], options.time_unit)
        self._side = SideColumn(self._columns["side"])
        self.faults = Faults(source.name)

    def batches(self) -> Iterator[Batch]:
        """The checked trades; batches may be empty.

        Raises `InvalidItems` at the end, or once enough rows are named, if any row breaks a rule, unless bad rows are
        to be skipped; `BadRequest` if the file cannot be read to its end or has no rows.
        """
        rows = self._rows.values(tuple(self._columns.values()), self.faults)
        strict = not self._options.skip_invalid
        seen = 0
        while (batch := self._checked(islice(rows, BATCH_ROWS))).rows:
            seen += batch.rows
            if strict and self.faults.full:
                break
            # After a bad row nothing will be stored, and the rest is read for its faults only.
            yield batch._replace(lines=[], trades=[]) if strict and self.faults.count else batch
        if not seen:
            raise refusal(self._source.name, "no rows")
        if strict and self.faults.count:
            raise self.faults.error()

    def _checked(self, rows: Iterator[Row]) -> Batch:
        # Rules of the batch's own moment, which also bounds the symbols that they remember.
        rules = TradeRules(self._options.max_future_seconds)
        given = self._given
        before = self.faults.count
        lines: list[int] = []
        trades: list[Trade] = []
        for line, values in rows:
            if values is None:
                continue
            try:
                trades.append(self._trade(rules, *given, *values))
            except BrokenRule as broken:
                self._add_fault(line, values, broken)
            else:
                lines.append(line)
        return Batch(lines, trades, len(trades) + self.faults.count - before, self._source.share)

    def _trade(
        self, rules: TradeRules, symbol: str, trade_id: str, time: str, price: str, amount: str, side: str
    ) -> Trade:
        return rules.trade(symbol, trade_id_of(trade_id), self._time.us(time), price, amount, self._side.side(side))

    def _add_fault(self, line: int, values: tuple[str, ...], broken: BrokenRule) -> None:
        at = FIELDS.index(broken.field) - len(self._given)
        self.faults.add(line, broken.rule, self._columns[broken.field], values[at])
