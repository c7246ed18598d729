"""A cursor is a text that only its own stream accepts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.cursor import Cursor, Place, Stream, parse_cursor
from klines.errors import BadRequest

EPOCH = "0123456789ab"
NUMBERS = st.integers(0, 10**15 - 1)


@given(st.integers(0, 2**31 - 1), NUMBERS)
def test_a_place_among_trades_comes_back(token_id: int, sequence: int) -> None:
    cursor = Cursor(EPOCH, Stream(token_id), Place(sequence))
    assert parse_cursor(str(cursor), cursor.stream) == cursor


@given(st.integers(0, 2**31 - 1), NUMBERS, NUMBERS, NUMBERS)
def test_a_place_among_bars_comes_back(token_id: int, sequence: int, moment_ms: int, further: int) -> None:
    cursor = Cursor(EPOCH, Stream(token_id, 60), Place(sequence, moment_ms, sequence + further))
    assert parse_cursor(str(cursor), cursor.stream) == cursor


@pytest.mark.parametrize(
    "text",
    [
        "x",
        f"{EPOCH}.1",
        f"{EPOCH}.1.-2",
        f"{EPOCH}.1.2.60",
        f"{EPOCH}.1.2 ",
        f"{EPOCH}.٣.2",
        f"{EPOCH}.1.{'9' * 40}",
        f"{EPOCH}.2.2",
        f"{EPOCH}.1.2.60.5.2",
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        parse_cursor(text, Stream(1))
    assert refusal.value.code == "cursor_invalid"
