"""Which column of a file is which field of a trade: what was asked for, else what the name says."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from klines.errors import BadRequest, echo

MAX_LISTED = 30

# In order of preference. A name is tried as it is written here, then in any case: Binance's messages have both `t`
# (an id) and `T` (a time), both `m` (the maker bought) and `M` (nothing).
SYNONYMS: Mapping[str, Sequence[str]] = {
    "symbol": ("symbol", "pair", "market", "ticker", "mint", "token"),
    "trade_id": ("trade_id", "tradeid", "id", "tid", "agg_trade_id", "a", "seq"),
    "time": (
        *("time", "timestamp", "datetime", "date", "ts"),
        *("time_us", "ts_us", "ts_ns", "time_ms", "ts_ms", "ts_s", "T", "t"),
    ),
    "price": ("price", "p", "px", "price_sol", "price_usd"),
    "amount": ("amount", "qty", "quantity", "size", "base_amount", "q", "tokens", "volume"),
    "side": ("side", "taker_side", "direction", "type", "is_buyer_maker", "isbuyermaker", "m"),
}
FIELDS = tuple(SYNONYMS)
MAKER_NAMES = frozenset({"is_buyer_maker", "isbuyermaker", "m"})


def chosen_columns(texts: Iterable[str]) -> dict[str, str]:
    """`{field: column}` of `FIELD=NAME` texts; raises `BadRequest`."""
    chosen: dict[str, str] = {}
    for text in texts:
        field, _, name = text.partition("=")
        if field not in FIELDS or not name:
            raise _refusal(f"--column {echo(text)}: must be FIELD=NAME, FIELD one of {' '.join(FIELDS)}")
        if field in chosen:
            raise _refusal(f"--column {field}: is given twice")
        if name in chosen.values():
            raise _refusal(f"--column {echo(text)}: the column already is another field")
        chosen[field] = name
    return chosen


def map_columns(names: Sequence[str], chosen: Mapping[str, str], *, symbol_given: bool) -> dict[str, str]:
    """`{field: column}` for every field, in the order of `FIELDS`, without `symbol` if all rows are given the same one.

    Raises `BadRequest` for a field that no column is, or that several are, listing the columns of the file.
    """
    if symbol_given and "symbol" in chosen:
        raise _refusal("--symbol and --column symbol=… contradict each other")
    fields = [field for field in FIELDS if field != "symbol" or not symbol_given]
    taken = set(chosen.values())
    free = [name for name in names if name not in taken]
    return {
        field: _named(names, field, chosen[field]) if field in chosen else _guessed(names, free, field)
        for field in fields
    }


def _named(names: Sequence[str], field: str, wanted: str) -> str:
    found = _matches(names, wanted)
    if len(found) != 1:
        what = "several columns have" if found else "no column has"
        raise _refusal(f"--column {field}={wanted}: {what} this name; {_listed(names)}")
    return found[0]


def _guessed(names: Sequence[str], free: Sequence[str], field: str) -> str:
    for synonym in SYNONYMS[field]:
        found = _matches(free, synonym)
        if len(found) == 1:
            return found[0]
        if found:
            several = " and ".join(map(echo, found[:MAX_LISTED]))
            raise _refusal(f"{field}: could be {several}: choose with --column {field}=NAME; {_listed(names)}")
    ways = "--column symbol=NAME or --symbol S" if field == "symbol" else f"--column {field}=NAME"
    raise _refusal(f"{field}: no column has a name like it: choose with {ways}; {_listed(names)}")


def _matches(names: Sequence[str], wanted: str) -> list[str]:
    return [name for name in names if name == wanted] or [name for name in names if name.lower() == wanted.lower()]


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return f"the columns are {', '.join(map(echo, names[:MAX_LISTED]))}{more}"


def _refusal(detail: str) -> BadRequest:
    return BadRequest(detail, code="columns_invalid")
