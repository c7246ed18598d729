"""`make soak`: a service under moderate load for SOAK_MINUTES, with faults drawn from a seed, held against the oracles.

A service process and a PostgreSQL of its own, 200 trades a second over 50 tokens, 100 followers and 20 Binance clients,
two readers and two clients that read nothing, all on loopback. It ends with one line of JSON, also added to
`build/soak.jsonl`, and a summary. Exit code 0 when every oracle holds, else 1 with the reason.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import traceback
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec

from tests.faults.load import Load, posting
from tests.faults.oracles import Account, Resources, assert_bars, assert_quiet, assert_released, connected
from tests.live.followers import charted
from tests.live.power import powered
from tests.servers import Database
from tests.service.processes import Service, service
from tests.soak.clients import Crowd, crowded
from tests.soak.faults import Faults
from tests.soak.measures import MIB, Sample, quantile, sample, slope
from tests.storage.bars import stored_trades

TOKENS, NATIVE, BINANCE = 50, 100, 20
SENDERS, PAUSE_S, MOST = 4, 0.12, 19  # about 200 trades a second
CALM_SECONDS = 15.0
SETTLE_SECONDS = 60.0
FILE = Path("build/soak.jsonl")
# A leak is judged only where there is time for one to show; a quarter of the samples is warming up.
JUDGED_MINUTES, MOST_MIB = 15.0, 10.0
Report = dict[str, Any]


async def soak(minutes: float, seed: int) -> Report:
    """The whole of it; raises AssertionError when an oracle does not hold."""
    symbols = [f"SOAK{number}" for number in range(TOKENS)]
    samples: list[Sample] = []
    async with AsyncExitStack() as stack:
        power, database = await stack.enter_async_context(powered())
        one = stack.enter_context(service(DATABASE_URL=database.url))
        url = await asyncio.to_thread(one.url)
        before = await Resources.of(one.process.pid, database.url)
        load = await stack.enter_async_context(posting(url, *symbols, seed=seed, most=MOST))
        begun = time.monotonic()
        async with crowded(url, symbols, NATIVE, BINANCE, seed) as crowd:
            faults = Faults(power, database, load, seed)
            looking = asyncio.create_task(sample(samples, one.process.pid, database.url))
            load.begin(SENDERS, PAUSE_S)
            await faults.run(60 * minutes - CALM_SECONDS)
            await asyncio.sleep(max(0.0, 60 * minutes - (time.monotonic() - begun)))
            looking.cancel()
            took = time.monotonic() - begun
            await load.end()
            account = await stored_right(database, load)
            await told_right(database, crowd)
        after = await assert_released(one.process.pid, database.url, before)
        report = figures_of(load, crowd, faults, samples) | account.figures | {"minutes": took / 60, "seed": seed}
        report |= {"files_left": after.files - before.files, "sockets_left": after.sockets - before.sockets}
        ended(one)
    assert minutes < JUDGED_MINUTES or report["rss_slope_mib_per_10min"] < MOST_MIB, "memory grows"
    return report


async def stored_right(database: Database, load: Load) -> Account:
    """O1, and O2 of every token."""
    account = await load.ledger.account(database.url)
    account.assert_clean()
    for symbol in load.symbols:
        await assert_bars(database.url, load.client, symbol)
    return account


async def told_right(database: Database, crowd: Crowd) -> None:
    """O3: each follower heard every trade once and every bar as it is, each Binance connection a part without holes.

    The tape does not reach back to the first trade after a quarter of an hour, so the order is that of one follower.
    """
    orders: dict[str, list[int]] = {}
    async with connected(database.url) as connection:
        stored = {symbol: await stored_trades(connection, symbol) for symbol in crowd.symbols}
    for symbol, follower in crowd.numbers.items():
        count = len(stored[symbol])
        await follower.until(lambda log, count=count: len(log.told) >= count, deadline=SETTLE_SECONDS)  # type: ignore[misc]
        orders[symbol] = follower.log.told
        assert sorted(follower.log.told) == sorted(trade.trade_id for trade in stored[symbol]), symbol
    for (symbol, _), chart in crowd.charts.items():
        await charted(chart, stored[symbol], SETTLE_SECONDS)
    for symbol, told in crowd.slices:
        if told:
            start = orders[symbol].index(told[0])
            assert told == orders[symbol][start : start + len(told)], f"{symbol}: a hole in a Binance stream"


def ended(one: Service) -> None:
    """It leaves in order, and O5."""
    assert one.stop() == 0
    assert_quiet(one.log)


def figures_of(load: Load, crowd: Crowd, faults: Faults, samples: list[Sample]) -> Report:
    """What is told of the run."""
    codes = Counter(str(code) for follower in crowd.followers for code in follower.codes)
    return {
        "trades": len(load.ledger.acknowledged),
        "posts": {str(status): count for status, count in sorted(load.ledger.answers.items())},
        "faults": dict(sorted(faults.counts.items())),
        "rto_s": {kind: round(seconds, 2) for kind, seconds in sorted(faults.outages.items())},
        "reads": {str(status): count for status, count in sorted(crowd.answers.items())},
        "read_p50_ms": round(1000 * quantile(crowd.times, 0.5), 1),
        "read_p99_ms": round(1000 * quantile(crowd.times, 0.99), 1),
        "clients": NATIVE + BINANCE,
        "reconnects": sum(codes.values()),
        "codes": dict(codes),
        "stalled": crowd.stalled,
        "rss_first_mib": round(samples[0].held.memory / MIB, 1),
        "rss_last_mib": round(samples[-1].held.memory / MIB, 1),
        "rss_most_mib": round(max(one.held.memory for one in samples) / MIB, 1),
        "rss_slope_mib_per_10min": round(slope(samples), 2),
        "files_most": max(one.held.files for one in samples),
        "sockets_most": max(one.held.sockets for one in samples),
        "sessions_most": max(one.held.sessions for one in samples),
        "queue_most": max(one.queue for one in samples),
        "samples": len(samples),
    }


def main() -> int:
    """Run, tell, and keep the line."""
    minutes, seed = float(os.environ.get("SOAK_MINUTES", "20")), int(os.environ.get("SOAK_SEED", "1"))
    try:
        report = asyncio.run(soak(minutes, seed)) | {"held": True}
    except Exception as error:
        traceback.print_exc()
        report = {"held": False, "seed": seed, "minutes": minutes, "reason": f"{type(error).__name__}: {error}"[:2000]}
    line = msgspec.json.encode({"soak": report}).decode()
    FILE.parent.mkdir(exist_ok=True)
    with FILE.open("a") as file:
        file.write(line + "\n")
    print(line)  # noqa: T201 - what it is for
    for name, value in report.items():
        print(f"{name:>24}  {value}")  # noqa: T201 - what it is for
    return 0 if report["held"] else 1


if __name__ == "__main__":
    sys.exit(main())
