"""Rows as JSON text, built by PostgreSQL: a page of 5,000 bars is one value, not 5,000 Python objects.

Decimals are fixed-point strings without superfluous zeros, times are integer epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Integer, Text, cast, extract, func, literal_column

Column = ColumnElement[Any]
Piece = Column | str
"""Of a JSON text: what is computed, or what is always the same."""


def decimal_text(value: Column) -> Column:
    """A numeric as fixed-point text: PostgreSQL never writes an exponent for one."""
    return cast(func.trim_scale(value), Text)


def epoch_us(moment: Column) -> Column:
    """Epoch microseconds; extract() is numeric, so nothing is rounded."""
    return cast(extract("epoch", moment) * _number(1_000_000), BigInteger)


def epoch_ms(moment: Column) -> Column:
    """Epoch milliseconds, cut."""
    return cast(func.floor(extract("epoch", moment) * _number(1000)), BigInteger)


def quoted(value: Column) -> list[Piece]:
    """The pieces of a JSON string whose text needs no escaping: digits and our own words."""
    return ['"', value, '"']


def quoted_decimal(value: Column) -> list[Piece]:
    """A numeric as a JSON string: the text of `decimal_text`, which what joins the pieces makes of a numeric itself."""
    return quoted(func.trim_scale(value))


def json_object(members: Mapping[str, Sequence[Piece]]) -> Column:
    """One JSON object as text; each member is the list of pieces of its value."""
    pieces: list[Piece] = []
    for number, (name, value) in enumerate(members.items()):
        pieces += [("{" if number == 0 else ",") + f'"{name}":', *value]
    return func.concat(*_joined([*pieces, "}"]))


def json_array(rows: Column, *order: Column) -> Column:
    """The rows as the inside of a JSON array, ascending by `order`; NULL without rows."""
    return func.string_agg(rows, _text(",")).aggregate_order_by(*order)


def _joined(pieces: Sequence[Piece]) -> Iterator[Column]:
    # Half of what a page of bars costs is per piece: constant ones that meet become one.
    for constant, run in groupby(pieces, lambda piece: isinstance(piece, str)):
        if constant:
            yield _text("".join(str(piece) for piece in run))
        else:
            yield from (piece for piece in run if not isinstance(piece, str))


def _text(value: str) -> Column:
    # Inlined, not bound: thirty parameters would be sent with every request.
    return literal_column("'" + value.replace("'", "''") + "'", Text)


def _number(value: int) -> Column:
    # As above; a bound one would also be made a numeric of in every row.
    return literal_column(str(value), Integer)
