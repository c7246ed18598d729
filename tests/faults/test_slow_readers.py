"""F30: readers of 1 kB a second and stopped ones are let go in time, and those who read notice little."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import NamedTuple

import psutil
import pytest
from bench.live.memory import send_queues
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.faults.load import Load, assert_held, posting, watching
from tests.faults.oracles import Resources, assert_quiet, assert_released
from tests.live.followers import Follower
from tests.live.streams import Tape
from tests.live.test_slow_clients import TOO_SLOW, stalled
from tests.servers import Database
from tests.service.processes import service

SYMBOL, CALM = "PEPE", "WIF"
TARGET = f"/ws/transactions/{SYMBOL}"
STOPPED, SLOW = 200, 10
BYTES_PER_SECOND = 1000
PROMISED = 30.0  # from the first batch that they do not read to the end of the last of them
PROBES = 20
MIB = 2**20


class Latency(NamedTuple):
    """From a trade's acknowledgement to its message at somebody who reads, in milliseconds."""

    p50: float
    p99: float


async def latency(load: Load, reader: Follower[Tape], probes: int) -> Latency:
    """Send trades one by one of a token that nobody else listens to."""
    waits = []
    for _ in range(probes):
        seen = len(reader.log.trades)
        begun = time.monotonic()
        await load.ledger.persist(load.client, load.trade(CALM))
        await reader.until(lambda tape, seen=seen: len(tape.trades) > seen)  # type: ignore[misc]
        waits.append(1000 * (time.monotonic() - begun))
    waits.sort()
    return Latency(waits[len(waits) // 2], waits[-1 - len(waits) // 100])


@asynccontextmanager
async def sipping(url: str) -> AsyncIterator[asyncio.Task[int | None]]:
    """A client that takes 1 kB a second; the task ends with its close code."""

    async def sip(connection: ClientConnection) -> int | None:
        taken, begun = 0, time.monotonic()
        with suppress(ConnectionClosed):
            while True:
                taken += len(await connection.recv())
                await asyncio.sleep(max(0.0, taken / BYTES_PER_SECOND - (time.monotonic() - begun)))
        return connection.close_code

    async with connect(
        url.replace("http", "ws", 1) + TARGET, proxy=None, compression=None, max_queue=1, close_timeout=1
    ) as connection:
        task = asyncio.create_task(sip(connection))
        try:
            yield task
        finally:
            task.cancel()
            connection.transport.abort()


async def gone(port: int, left: int) -> float:
    """Until the kernel holds nothing but for so many clients of a port; the most bytes it held for all of them."""
    most = 0
    async with asyncio.timeout(PROMISED):
        while True:
            queues = send_queues(port)
            most = max(most, sum(map(sum, queues.values())))
            if sum(map(len, queues.values())) <= left:
                return most
            await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.fault("F30")
async def test_slow_and_stopped_readers_are_let_go_and_nobody_else_notices(
    plain: Database, figures: Callable[..., None]
) -> None:
    with service(DATABASE_URL=plain.url) as one:
        url = await asyncio.to_thread(one.url)
        port, process = int(url.rpartition(":")[2]), psutil.Process(one.process.pid)
        async with AsyncExitStack() as stack:
            load = await stack.enter_async_context(posting(url, SYMBOL, CALM))
            pairs = await stack.enter_async_context(watching(url, (SYMBOL, CALM)))
            before = await latency(load, pairs[CALM].trades, PROBES)
            held, left = await Resources.of(process.pid, plain.url), sum(map(len, send_queues(port).values()))
            sips = [await stack.enter_async_context(sipping(url)) for _ in range(SLOW)]
            for _ in range(STOPPED):
                await stack.enter_async_context(stalled(url, TARGET))
            begun = time.monotonic()
            ending = asyncio.create_task(gone(port, left + SLOW))
            latencies = []
            while not ending.done():
                await load.ledger.persist(load.client, *(load.trade(SYMBOL) for _ in range(500)))
                latencies.append(await latency(load, pairs[CALM].trades, 2))
            queued = await ending
            took, most = time.monotonic() - begun, process.memory_info().rss
            account = await assert_held(plain.url, load, pairs)
            for pair in pairs.values():
                pair.stayed()
            codes = {task.result() for task in sips if task.done()}
            assert codes <= {TOO_SLOW, 1006}
        await assert_released(process.pid, plain.url, held)
        assert one.stop() == 0
    assert_quiet(one.log)
    told = {"stopped": STOPPED, "slow": SLOW, "gone_s": took, "kernel_mib": queued / MIB}
    told |= {"p99_before_ms": before.p99, "p99_beside_ms": max(one.p99 for one in latencies)}
    told |= {"rss_mib": most / MIB, "rss_more_mib": (most - held.memory) / MIB}
    figures("F30", **told, **account.figures, gaps=0)
