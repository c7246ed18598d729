"""From the return of a commit to the frame at a client: 1,000 trades/s over 50 tokens, beside a bare NOTIFY."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence

import asyncpg
import psutil

from bench.live.clients import Clients
from bench.live.figures import Case, quantiles
from bench.live.setting import STREAMS, SYMBOLS, Bench
from bench.load import Load

TOKENS = 50
BATCH = 20
PERIOD = 0.02
PER_TOKEN = 4
# What is under way when the window is over has this long to arrive.
LATE_SECONDS = 1
NOTE = "WITH note AS (INSERT INTO bench_notes VALUES ($1::integer)) SELECT pg_notify('bench', $1::integer::text)"


async def latency(bench: Bench) -> list[Case]:
    """The bare NOTIFY, then each stream with each order of the tokens."""
    cases = [await _bare_notify(bench)]
    for stream in STREAMS:
        for order in ("even", "random"):
            with bench.serving() as (service, clients):
                figures = await _latency(bench, service, clients, stream, order)
            cases.append({"case": f"{stream}, {order}", **figures})
    return cases


async def _latency(bench: Bench, service: psutil.Process, clients: Clients, stream: str, order: str) -> Case:
    per_token = bench.scale.of(PER_TOKEN)
    clients.open([STREAMS[stream].format(symbol) for symbol in SYMBOLS[:TOKENS]] * per_token)
    batches = list(_batches(bench.scale.window_s, order))
    load = Load(service, bench.postmaster)
    clients.begin(keeps=True)
    seconds = await bench.writer.paced(batches, PERIOD)
    cores = load.cores()
    await asyncio.sleep(LATE_SECONDS)
    got, committed = clients.end(), bench.writer.committed
    told = [at - committed[trade] for at, trade in zip(got.arrivals[::2], got.arrivals[1::2], strict=True)]
    commits = quantiles(bench.writer.took, "commit_")
    return {
        **quantiles(told),
        "commit_p50_ms": commits["commit_p50_ms"],
        "commit_max_ms": commits["commit_max_ms"],
        "missing": per_token * len(committed) - len(told),
        "trades_per_s": len(committed) / seconds,
        "reader_cores": got.cpu / seconds,
        **cores,
    }


def _batches(seconds: float, order: str) -> Iterator[Sequence[int]]:
    pick = random.Random(1)  # noqa: S311 - the same run every time
    for number in range(int(seconds / PERIOD)):
        even = [place % TOKENS for place in range(BATCH * number, BATCH * number + BATCH)]
        yield even if order == "even" else pick.sample(range(TOKENS), BATCH)


async def _bare_notify(bench: Bench) -> Case:
    rung: dict[int, int] = {}

    def ring(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        rung[int(str(payload))] = time.monotonic_ns()

    listening = await asyncpg.connect(bench.url)
    try:
        await listening.add_listener("bench", ring)
        load = Load(bench.postmaster, bench.postmaster)
        sent, done = await _notes(bench)
        foreign = load.cores()["foreign_cores"]
        await asyncio.sleep(LATE_SECONDS)
    finally:
        await listening.close()
    round_trip = quantiles(rung[number] - at for number, at in enumerate(sent))
    after = quantiles((rung[number] - at for number, at in enumerate(done)), "after_commit_")
    return {"case": "bare NOTIFY", **round_trip, **after, "foreign_cores": foreign}


async def _notes(bench: Bench) -> tuple[list[int], list[int]]:
    """Write a note per period for the length of a window; when each was sent, and when its commit returned."""
    connection = bench.writer.connection
    await connection.execute("CREATE TABLE IF NOT EXISTS bench_notes (note integer)")
    sent, done = [], []
    began = time.monotonic()
    for number in range(int(bench.scale.window_s / PERIOD)):
        await asyncio.sleep(began + number * PERIOD - time.monotonic())
        sent.append(time.monotonic_ns())
        await connection.execute(NOTE, number)
        done.append(time.monotonic_ns())
    return sent, done
