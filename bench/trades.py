"""The trades that benchmarks are made of: seeded, the same in every run, with exact decimals and with ties.

Prices walk in ticks and amounts are lots, both integers before they are text, so every sum is exact. Tokens are busy
by Zipf's law; a share of the trades comes late, and some share their microsecond with the one before.
"""

from __future__ import annotations

import bisect
import csv
import gzip
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from klines.models import Trade

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
LATE = 0.02
TIES = 0.005
LATE_US = 30_000_000
# Real trades of pump windows, where somebody has them; nothing depends on them.
PUMPS = Path(__file__).parents[2] / "shared" / "data" / "binance-pump-events" / "trades_all_events.csv.gz"


def symbols(count: int) -> list[str]:
    """Names of tokens."""
    return [f"BENCH{number:04}-SOL" for number in range(count)]


def generated(count: int, tokens: int, seconds: int, seed: int = 1, start_us: int = START_US) -> Iterator[Trade]:
    """So many trades of so many tokens, spread over a time, in the order in which they become known."""
    pick = random.Random(seed)  # noqa: S311 - the same trades every time
    names = symbols(tokens)
    weights = list(itertools.accumulate(1 / rank for rank in range(1, tokens + 1)))
    prices = [1_000_000 + 1000 * place for place in range(tokens)]
    step, time_us = seconds * 1_000_000 / count, float(start_us)
    for number in range(count):
        token = bisect.bisect(weights, pick.random() * weights[-1])
        if pick.random() >= TIES:
            time_us += 2 * step * pick.random()
        prices[token] = max(1, prices[token] + pick.randint(-40, 40))
        late = int(pick.random() * LATE_US) if pick.random() < LATE else 0
        lots = pick.randint(1, 10 ** pick.randint(2, 7))
        yield Trade(
            names[token],
            number,
            max(start_us, int(time_us) - late),
            _decimal(prices[token], 9),
            _decimal(lots, 3),
            "buy" if pick.random() < 0.5 else "sell",
        )


def pumps() -> Iterator[Trade]:
    """The trades of the pump windows, shifted to one beginning, by time; nothing where they are not at hand."""
    if not PUMPS.exists():
        return
    events: dict[str, list[Trade]] = {}
    with gzip.open(PUMPS, "rt") as lines:
        for row in csv.DictReader(lines):
            trade = Trade(
                row["event"].split(".")[0].replace("_", "-")[:32].upper(),
                int(row["trade_id"]),
                int(row["ts_ms"]) * 1000,
                row["price"],
                row["qty"],
                "buy" if row["side"] == "buy" else "sell",
            )
            events.setdefault(row["event"], []).append(trade)
    for trades in events.values():
        shift = START_US - trades[0].time_us
        trades[:] = [trade._replace(time_us=trade.time_us + shift) for trade in trades]
    yield from sorted(itertools.chain(*events.values()), key=lambda trade: trade.time_us)


def _decimal(units: int, places: int) -> str:
    whole, part = divmod(units, 10**places)
    return f"{whole}.{part:0{places}}"
