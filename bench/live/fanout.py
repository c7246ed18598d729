"""What a delivery costs the service: one token, 20 trades/s, no, one and 1,000 clients; then as fast as it goes."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import psutil

from bench.live.clients import Clients, Tally
from bench.live.figures import Case
from bench.live.setting import STREAMS, SYMBOLS, Bench
from bench.load import Load, cpu_seconds

CLIENTS = 1000
PERIOD = 0.05
PLACE = 1


class Window(NamedTuple):
    """CPU seconds of the service in a window, its length in seconds, what the clients got, and cores in use."""

    spent: float
    seconds: float
    got: Tally
    cores: Case


async def fanout(bench: Bench) -> list[Case]:
    """Each stream at a steady pace, then bars without one."""
    return [*[await _steady(bench, stream) for stream in STREAMS], await _unpaced(bench, "klines 1s")]


async def _steady(bench: Bench, stream: str) -> Case:
    path = STREAMS[stream].format(SYMBOLS[PLACE])
    windows = []
    with bench.serving(processes=2) as (service, clients):
        for more in (0, 1, bench.scale.of(CLIENTS) - 1):
            clients.open([path] * more)
            batches = [[PLACE]] * int(bench.scale.window_s / PERIOD)
            windows.append(await _window(bench, service, clients, batches, PERIOD))
    none, one, most = windows
    return {
        "case": f"{stream}, 20/s",
        "deliveries_per_s": most.got.messages / most.seconds,
        "cpu_us_per_delivery": (most.spent - none.spent) / most.got.messages * 1e6,
        "cpu_us_per_further_delivery": (most.spent - one.spent) / most.got.messages * 1e6,
        "idle_service_cores": none.spent / none.seconds,
        "one_client_service_cores": one.spent / one.seconds,
        "reader_cores": most.got.cpu / most.seconds,
        **most.cores,
    }


async def _unpaced(bench: Bench, stream: str) -> Case:
    connection = bench.writer.connection
    with bench.serving(processes=2, push_ms=0) as (service, clients):
        clients.open([STREAMS[stream].format(SYMBOLS[PLACE])] * bench.scale.of(CLIENTS))
        # Or the disk sets the pace.
        await connection.execute("SET synchronous_commit = off")
        window = await _window(bench, service, clients, _for(bench.scale.window_s, [PLACE]), 0)
        await connection.execute("RESET synchronous_commit")
    return {
        "case": f"{stream}, unpaced",
        "deliveries_per_s": window.got.messages / window.seconds,
        "cpu_us_per_delivery": window.spent / window.got.messages * 1e6,
        "commits_per_s": len(bench.writer.committed) / window.seconds,
        "ended": window.got.ended,
        "reader_cores": window.got.cpu / window.seconds,
        **window.cores,
    }


async def _window(
    bench: Bench, service: psutil.Process, clients: Clients, batches: Iterable[Sequence[int]], period: float
) -> Window:
    load, before = Load(service, bench.postmaster), cpu_seconds(service)
    clients.begin()
    seconds = await bench.writer.paced(batches, period)
    cores, got = load.cores(), clients.end()
    return Window(cpu_seconds(service) - before, seconds, got, cores)


def _for(seconds: float, batch: Sequence[int]) -> Iterator[Sequence[int]]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        yield batch
