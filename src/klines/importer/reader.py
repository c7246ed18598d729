"""A file of trades, read once: batches of checked trades, and what was wrong with the other rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import msgspec

from klines.importer.columns import FIELDS, map_columns
from klines.importer.faults import Fault, Faults
from klines.importer.rows import Format, Row, open_rows
from klines.importer.source import Source, open_source, refusal
from klines.importer.values import SideColumn, TimeColumn, TimeUnit, trade_id_of, trade_ids_of
from klines.models import Trade, TradeColumns, columns_of
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
    trades: TradeColumns
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
        rows = self._rows.values(tuple(self._columns.values()))
        strict = not self._options.skip_invalid
        seen = 0
        while (batch := self._checked(list(islice(rows, BATCH_ROWS)))).rows:
            seen += batch.rows
            if strict and self.faults.full:
                break
            # After a bad row nothing will be stored, and the rest is read for its faults only.
            yield batch._replace(lines=[], trades=columns_of([])) if strict and self.faults.count else batch
        if not seen:
            raise refusal(self._source.name, "no rows")
        if strict and self.faults.count:
            raise self.faults.error()

    def _checked(self, rows: Sequence[Row]) -> Batch:
        # Rules of the batch's own moment, which also bounds the symbols that they remember.
        rules = TradeRules(self._options.max_future_seconds)
        if (plain := self._plain(rules, rows)) is not None:
            return Batch([line for line, _ in rows], plain, len(plain), self._source.share)
        lines: list[int] = []
        trades: list[Trade] = []
        for line, values in rows:
            if isinstance(values, Fault):
                self.faults.add(line, values)
                continue
            try:
                trades.append(self._trade(rules, *self._given, *values))
            except BrokenRule as broken:
                self._add_fault(line, values, broken)
            else:
                lines.append(line)
        return Batch(lines, columns_of(trades), len(rows), self._source.share)

    def _plain(self, rules: TradeRules, rows: Sequence[Row]) -> TradeColumns | None:
        """All rows at once; None where one of them is bad, or may be, and each has to be looked at."""
        values = [texts for _, texts in rows if not isinstance(texts, Fault)]
        if not values or len(values) < len(rows):
            return None
        columns = list(map(list, zip(*values, strict=True)))
        symbols = [] if not self._given else [list(self._given) * len(rows)]
        try:
            return rules.columns(self._columns_of(*symbols, *columns))
        except BrokenRule:
            return None

    def _columns_of(
        self,
        symbols: list[str],
        ids: list[str],
        times: list[str],
        prices: list[str],
        amounts: list[str],
        sides: list[str],
    ) -> TradeColumns:
        # In the order in which a single row is read: the first time decides on the unit, if its row has come that far.
        trade_ids, times_us = trade_ids_of(ids), self._time.all_us(times)
        return TradeColumns(symbols, trade_ids, times_us, prices, amounts, self._side.sides(sides))

    def _trade(
        self, rules: TradeRules, symbol: str, trade_id: str, time: str, price: str, amount: str, side: str
    ) -> Trade:
        return rules.trade(symbol, trade_id_of(trade_id), self._time.us(time), price, amount, self._side.side(side))

    def _add_fault(self, line: int, values: tuple[str, ...], broken: BrokenRule) -> None:
        at = FIELDS.index(broken.field) - len(self._given)
        self.faults.add(line, Fault(broken.rule, self._columns[broken.field], values[at]))
