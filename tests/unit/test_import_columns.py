"""Columns are found by name, in an order of preference, and nothing is guessed where two could be meant."""

from __future__ import annotations

import pytest

from klines.errors import BadRequest
from klines.importer.columns import FIELDS, SYNONYMS, chosen_columns, map_columns

OURS = ["symbol", "trade_id", "time", "price", "amount", "side"]


def mapped(names: list[str], *chosen: str, symbol_given: bool = False) -> dict[str, str]:
    return map_columns(names, chosen_columns(chosen), symbol_given=symbol_given)


def refused(names: list[str], *chosen: str, symbol_given: bool = False) -> str:
    with pytest.raises(BadRequest) as caught:
        mapped(names, *chosen, symbol_given=symbol_given)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.detail
    return caught.value.detail


def test_our_own_names_map_to_themselves_in_the_order_of_the_fields() -> None:
    found = mapped(OURS[::-1])

    assert found == dict(zip(OURS, OURS, strict=True))
    assert tuple(found) == FIELDS


@pytest.mark.parametrize(("field", "synonym"), [(field, name) for field in FIELDS for name in SYNONYMS[field]])
def test_every_synonym_is_found_in_any_case(field: str, synonym: str) -> None:
    others = [name for name in OURS if name != field]

    assert mapped([*others, synonym])[field] == synonym
    assert mapped([*others, synonym.upper()])[field] == synonym.upper()


@pytest.mark.parametrize("field", FIELDS)
def test_the_preferred_synonym_wins(field: str) -> None:
    names = [name for name in OURS if name != field]
    synonyms = list(SYNONYMS[field])

    assert mapped(names + synonyms[::-1])[field] == synonyms[0]


def test_the_messages_of_binance() -> None:
    trade = mapped(["e", "E", "s", "t", "p", "q", "T", "m", "M"], "trade_id=t", symbol_given=True)
    aggregate = mapped(["a", "p", "q", "f", "l", "T", "m", "M"], symbol_given=True)

    assert trade == {"trade_id": "t", "time": "T", "price": "p", "amount": "q", "side": "m"}
    assert aggregate == {"trade_id": "a", "time": "T", "price": "p", "amount": "q", "side": "m"}


def test_a_chosen_column_wins_and_is_no_other_field() -> None:
    names = ["symbol", "trade_id", "ts_ms", "ts_s_exact", "price", "qty", "side"]

    assert mapped(names)["time"] == "ts_ms"
    assert mapped(names, "time=ts_s_exact")["time"] == "ts_s_exact"
    assert mapped(names, "time=TS_S_EXACT")["time"] == "ts_s_exact"
    assert mapped([*OURS, "id"], "side=trade_id")["trade_id"] == "id"


def test_names_that_differ_in_case_only_are_ambiguous_unless_one_is_exact() -> None:
    others = [name for name in OURS if name != "price"]

    assert mapped([*others, "price", "Price"])["price"] == "price"
    detail = refused([*others, "Price", "PRICE"])
    assert "price: could be 'Price' and 'PRICE'" in detail
    assert "--column price=NAME" in detail
    assert mapped([*others, "Price", "PRICE"], "price=PRICE")["price"] == "PRICE"
    assert "several columns" in refused([*others, "Price", "PRICE"], "price=price")


def test_a_missing_field_names_the_option_and_the_columns() -> None:
    detail = refused(["symbol", "trade_id", "time", "cost", "amount", "side"])

    assert "price:" in detail
    assert "--column price=NAME" in detail
    assert "'cost'" in detail
    assert "--symbol S" in refused([name for name in OURS if name != "symbol"])


def test_the_list_of_columns_is_bounded_and_printable() -> None:
    detail = refused([f"c{number}" for number in range(5000)])

    assert "and 4970 more" in detail
    assert len(detail) < 1000
    assert "\x1b" not in refused(["\x1b[2J", "x" * 5000])


def test_a_given_symbol_needs_no_column() -> None:
    assert "symbol" not in mapped(OURS, symbol_given=True)
    assert "contradict" in refused(OURS, "symbol=symbol", symbol_given=True)


@pytest.mark.parametrize(
    ("chosen", "rule"),
    [
        (("cost=price",), "must be FIELD=NAME"),
        (("price",), "must be FIELD=NAME"),
        (("price=",), "must be FIELD=NAME"),
        (("=price",), "must be FIELD=NAME"),
        (("price=a", "price=b"), "given twice"),
        (("price=a", "amount=a"), "already is another field"),
        (("price=nothing",), "no column has this name"),
    ],
)
def test_a_bad_choice_is_refused(chosen: tuple[str, ...], rule: str) -> None:
    assert rule in refused(OURS, *chosen)


def test_a_name_may_hold_an_equals_sign() -> None:
    assert chosen_columns(["price=a=b"]) == {"price": "a=b"}
