"""Many trades at once: the laws of `bench.trades`, drawn by NumPy, in one Parquet file that every engine loads.

Columns: token (1 is the busiest), trade_id (unique), time (microseconds, UTC), price (9 decimals), amount (3), side,
and k: the place of the trade in the order of (time, trade_id), so that an engine has one number to tell the first and
the last one by. Rows stand in the order in which they become known. The same arguments make the same file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bench.trades import LATE, LATE_US, START_US, TIES, pumps

PRICE_SCALE, AMOUNT_SCALE = 9, 3
SIDES = ("buy", "sell")
# Of the values in the file; 18 digits are what fits 64 bits.
DIGITS = 18
ROW_GROUP = 500_000


class Market(NamedTuple):
    """A file of trades, how many they are, and of how many tokens over how many seconds since `START_US`."""

    file: Path
    trades: int
    tokens: int
    seconds: int


def write_market(file: Path, count: int, tokens: int = 200, seconds: int = 3 * 86_400, seed: int = 1) -> Market:
    """Write the file; it needs some 150 bytes of memory for each trade."""
    draw = np.random.default_rng(seed)
    token, times = _tokens(draw, count, tokens), _times(draw, count, seconds)
    table = pa.table(
        {
            "token": token + 1,
            "trade_id": np.arange(count),
            "time": _moments(times),
            "price": decimals(_prices(draw, token, tokens), PRICE_SCALE),
            "amount": decimals(draw.integers(1, 10 ** draw.integers(2, 8, count), endpoint=True), AMOUNT_SCALE),
            "side": pc.take(pa.array(SIDES), pa.array(draw.integers(0, 2, count))),
            # Trade ids ascend already, so a stable sort by time is one by both.
            "k": np.argsort(np.argsort(times, kind="stable"), kind="stable"),
        }
    )
    pq.write_table(table, file, row_group_size=ROW_GROUP, compression="zstd")
    return Market(file, count, tokens, seconds)


def write_pumps(file: Path, divisor: int) -> Market | None:
    """The trades of the pump windows, or of one window in so many, decimals as the texts that came; None without."""
    tokens: dict[str, int] = {}
    kept = []
    for trade in pumps():
        number = tokens.setdefault(trade.symbol, len(tokens))
        if number % divisor == 0:
            kept.append((number // divisor + 1, *trade[1:]))
    if not kept:
        return None
    token, trade_id, times, price, amount, side = zip(*kept, strict=True)
    columns = {"token": pa.array(token, pa.int32()), "trade_id": trade_id, "time": _moments(times)}
    pq.write_table(pa.table(columns | {"price": price, "amount": amount, "side": side}), file)
    return Market(file, len(kept), max(token), (times[-1] - START_US) // 1_000_000 + 1)


def decimals(units: Any, scale: int) -> pa.Array:
    """Integers as decimals with so many places, exactly: 128 bits, of which the upper half is empty."""
    words = np.zeros((len(units), 2), dtype="<i8")
    words[:, 0] = units
    return pa.Array.from_buffers(pa.decimal128(DIGITS, scale), len(units), [None, pa.py_buffer(words)])


def _moments(times: Any) -> pa.Array:
    return pa.array(times, pa.int64()).cast(pa.timestamp("us", "UTC"))


def _tokens(draw: np.random.Generator, count: int, tokens: int) -> Any:
    weights = 1 / np.arange(1, tokens + 1)
    return draw.choice(np.arange(tokens, dtype=np.int32), size=count, p=weights / weights.sum())


def _times(draw: np.random.Generator, count: int, seconds: int) -> Any:
    steps = draw.random(count) * (2 * seconds * 1e6 / count)
    steps[draw.random(count) < TIES] = 0
    # A little less than the whole time, so that it is not passed.
    times = START_US + (np.cumsum(steps) * (seconds * 1e6 / max(1.0, steps.sum()))).astype("i8")
    late = np.where(draw.random(count) < LATE, draw.integers(0, LATE_US, count), 0)
    return np.clip(times - late, START_US, START_US + seconds * 1_000_000 - 1)


def _prices(draw: np.random.Generator, token: Any, tokens: int) -> Any:
    """Each token's price walks in its own ticks, in the order of the trades."""
    order = np.argsort(token, kind="stable")
    walked = np.cumsum(draw.integers(-40, 41, len(token)))
    first = np.searchsorted(token[order], np.arange(tokens))
    before = np.where(first > 0, walked[np.maximum(first - 1, 0)], 0)
    prices = np.empty(len(token), dtype="i8")
    prices[order] = walked - before[token[order]] + 1_000_000 + 1000 * token[order]
    return np.maximum(prices, 1)
