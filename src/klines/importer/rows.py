"""The rows of a CSV or JSONL text: for each its line and the texts of the wanted columns.

In the place of a row that cannot be read comes its fault, so that every row is counted by whoever reads.
Where the rows' own bounds are in doubt (quotes), the file is refused with a `BadRequest`.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Literal, Protocol, cast

import msgspec

from klines.errors import echo
from klines.importer.faults import Fault
from klines.importer.source import Source, refusal

Format = Literal["csv", "jsonl"]
Row = tuple[int, tuple[str, ...] | Fault]

DELIMITERS = ",;\t|"

_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_text = msgspec.json.Decoder(str)
_NO_TEXT = ("", "n", "{", "[")


class Rows(Protocol):
    """The rows of a file; `names` are its columns."""

    names: list[str]

    def values(self, columns: Sequence[str]) -> Iterator[Row]:
        """The line of every row and its texts of `columns`; more than one column, each one of `names`."""


def open_rows(source: Source, form: Format | None, delimiter: str | None) -> Rows:
    """The rows behind the header or the first object; raises `BadRequest`. The form is guessed unless given."""
    lines = source.lines()
    number, first = next(((at, line) for at, line in enumerate(lines, start=1) if line.strip()), (0, ""))
    if not first:
        raise refusal(source.name, "is empty")
    if form == "jsonl" or (form is None and first.lstrip().startswith("{")):
        return _JsonRows(source.name, number, first, lines)
    return _CsvRows(source.name, number, first, lines, delimiter or _delimiter_of(first))


def _delimiter_of(header: str) -> str:
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter))))


class _CsvRows:
    def __init__(self, file: str, number: int, first: str, lines: Iterator[str], delimiter: str) -> None:
        self._file = file
        self._before = number - 1
        self._reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
        self.names = next(self._rows())[1]
        name, times = Counter(self.names).most_common(1)[0]
        if times > 1:
            raise refusal(file, f"{echo(name)} is the name of {times} columns", number)

    def values(self, columns: Sequence[str]) -> Iterator[Row]:
        width = len(self.names)
        pick = itemgetter(*map(self.names.index, columns))
        for line, row in self._rows():
            if len(row) == width:
                yield line, pick(row)
            elif row:
                yield line, Fault(f"has {len(row)} fields, the header has {width}")

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        reader, before = self._reader, self._before
        line = before + reader.line_num + 1
        try:
            for row in reader:
                yield line, row
                line = before + reader.line_num + 1
        except csv.Error as error:
            reason = str(error)
            rule = "a quote is opened and not closed" if "unexpected end" in reason else reason
            raise refusal(self._file, f"cannot be read as CSV: {rule}", line) from None


class _JsonRows:
    def __init__(self, file: str, number: int, first: str, lines: Iterator[str]) -> None:
        self._number = number
        self._lines = chain([first], lines)
        try:
            self.names = list(_raw_object.decode(first))
        except (msgspec.DecodeError, RecursionError) as error:
            raise refusal(file, f"must be a JSON object: {_reason(error)}", number) from None

    def values(self, columns: Sequence[str]) -> Iterator[Row]:
        fields = [f"_{number}" for number in range(len(columns))]
        shape = msgspec.defstruct(
            "Item",
            [(field, msgspec.Raw, msgspec.field(default=msgspec.Raw(b""))) for field in fields],
            rename=dict(zip(fields, columns, strict=True)),
            gc=False,
        )
        decode = msgspec.json.Decoder(shape).decode
        for line, text in enumerate(self._lines, start=self._number):
            if text.isspace():
                continue
            try:
                raw = msgspec.structs.astuple(decode(text))
            except (msgspec.DecodeError, RecursionError) as error:
                yield line, Fault(f"must be a JSON object: {_reason(error)}")
                continue
            texts = tuple(map(_text_of, raw))
            if None in texts:
                at = texts.index(None)
                shown = bytes(raw[at]).decode()
                yield line, Fault("must be a string or a number" if shown else "is missing", columns[at], shown)
            else:
                yield line, cast(tuple[str, ...], texts)


def _text_of(raw: msgspec.Raw) -> str | None:
    """The text of a string, a number, true or false; None for everything else."""
    text = bytes(raw).decode()
    if text[:1] == '"':
        return _text.decode(text) if "\\" in text else text[1:-1]
    return None if text[:1] in _NO_TEXT else text


def _reason(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
