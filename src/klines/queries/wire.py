"""Rows as JSON text, built by PostgreSQL: a page of 5,000 bars is one value, not 5,000 Python objects.

Decimals are fixed-point strings without superfluous zeros, times are integer epoch milliseconds.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Text, cast, extract, func, literal_column

Column = ColumnElement[Any]


def decimal_text(value: Column) -> Column:
    """A numeric as fixed-point text: PostgreSQL never writes an exponent for one."""
    return cast(func.trim_scale(value), Text)


def epoch_us(moment: Column) -> Column:
    """Epoch microseconds; extract() is numeric, so nothing is rounded."""
    return cast(extract("epoch", moment) * 1_000_000, BigInteger)


def epoch_ms(moment: Column) -> Column:
    """Epoch milliseconds, cut."""
    return cast(func.floor(extract("epoch", moment) * 1000), BigInteger)


def quoted(value: Column) -> list[Column]:
    """The pieces of a JSON string whose text needs no escaping: digits and our own words."""
    return [_text('"'), value, _text('"')]


def json_object(members: dict[str, list[Column]]) -> Column:
    """One JSON object as text; each member is the list of pieces of its value."""
    pieces: list[Column] = []
    for number, (name, value) in enumerate(members.items()):
        pieces += [_text(("{" if number == 0 else ",") + f'"{name}":'), *value]
    return func.concat(*pieces, _text("}"))


def json_array(rows: Column, *order: Column) -> Column:
    """The rows as the inside of a JSON array, ascending by `order`; NULL without rows."""
    return func.aggregate_strings(rows, ",").aggregate_order_by(*order)


def _text(value: str) -> Column:
    # Inlined, not bound: thirty parameters would be sent with every request.
    return literal_column("'" + value.replace("'", "''") + "'", Text)
