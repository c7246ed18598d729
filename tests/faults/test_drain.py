"""F23, F24: told to leave, the service refuses what is new, finishes what it began and waits for no stuck reader."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from klines.server import GRACE_SECONDS
from tests.faults.load import Load, assert_held, posting, watching
from tests.faults.oracles import assert_quiet, connected
from tests.live.followers import poll
from tests.live.test_processes import WAITS
from tests.servers import Database
from tests.service.processes import service

SYMBOL = "PEPE"
TARGET = f"/ws/transactions/{SYMBOL}"
SOCKETS = 500
AT_ONCE = 50
IN_FLIGHT = 8
STOPPED = GRACE_SECONDS + 1.0
HELD = "SELECT FROM klines_internal.feeds JOIN public.tokens USING (token_id) WHERE symbol = $1 FOR UPDATE OF feeds"
SESSIONS = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'klines%'
"""
READER = f"""
import sys
from websockets.sync.client import connect
with connect(sys.argv[1] + "{TARGET}", proxy=None, compression=None) as stream:
    for message in stream:
        print(message[:20], flush=True)
"""


async def opened(stack: AsyncExitStack, url: str, count: int) -> list[ClientConnection]:
    """So many sockets, each with its snapshot."""

    async def one() -> ClientConnection:
        socket = await connect(url.replace("http", "ws", 1) + TARGET, proxy=None, compression=None, close_timeout=2)
        await socket.recv()
        return socket

    sockets: list[ClientConnection] = []
    for _ in range(0, count, AT_ONCE):
        sockets += await asyncio.gather(*(one() for _ in range(AT_ONCE)))
    for socket in sockets:
        stack.push_async_callback(socket.close)
    return sockets


async def end_of(socket: ClientConnection) -> tuple[int | None, float]:
    """The close code of a socket, and the monotonic time of its end."""
    with suppress(ConnectionClosed):
        while True:
            await socket.recv()
    return socket.close_code, time.monotonic()


async def waiting(database: Database, count: int) -> None:
    """Until so many statements wait for a lock."""
    async with connected(database.url) as connection:

        async def enough() -> bool:
            return bool(await connection.fetchval(WAITS) >= count)

        await poll(enough)


async def refused(url: str) -> float:
    """Until the service is not ready any more; the monotonic time."""

    async def unready() -> bool:
        try:
            async with httpx.AsyncClient(base_url=url, timeout=1) as client:
                return (await client.get("/health/ready")).status_code == 503
        except httpx.HTTPError:
            return True

    await poll(unready, STOPPED)
    return time.monotonic()


@pytest.mark.slow
@pytest.mark.fault("F23")
async def test_a_drain_closes_500_sockets_and_finishes_what_is_under_way(
    plain: Database, figures: Callable[..., None]
) -> None:
    with service(DATABASE_URL=plain.url) as one:
        url = await asyncio.to_thread(one.url)
        async with AsyncExitStack() as stack:
            load = await stack.enter_async_context(posting(url, SYMBOL))
            await load.ledger.persist(load.client, load.trade())
            sockets = await opened(stack, url, SOCKETS)
            ends = [asyncio.create_task(end_of(socket)) for socket in sockets]
            holder = await stack.enter_async_context(connected(plain.url))
            await holder.execute("BEGIN")
            await holder.fetch(HELD, SYMBOL)
            posts = [asyncio.create_task(load.ledger.post(load.client, load.trade())) for _ in range(IN_FLIGHT)]
            # As many as there are connections to write with; the others wait for one.
            await waiting(plain, 4)
            begun = time.monotonic()
            leaving = asyncio.create_task(asyncio.to_thread(one.stop))
            unready = await refused(url)
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            await holder.execute("COMMIT")
            answers = [answer.status_code if answer else 0 for answer in await asyncio.gather(*posts)]
            assert await leaving == 0
            took = time.monotonic() - begun
            codes, times = zip(*await asyncio.gather(*ends), strict=True)
            assert took < STOPPED
            assert Counter(codes) == {1012: SOCKETS}
            assert set(answers) <= {200, 503} and 200 in answers
            account = await load.ledger.account(plain.url)
            account.assert_clean()
            async with connected(plain.url) as connection:
                assert await connection.fetchval(SESSIONS) == 0
    assert_quiet(one.log)
    spread = max(times) - min(times)
    told = {"exit_s": took, "unready_s": unready - begun, "spread_s": spread, "codes": dict(Counter(map(str, codes)))}
    figures("F23", **told, posts={str(code): answers.count(code) for code in set(answers)}, **account.figures)


@asynccontextmanager
async def stopped_reader(url: str) -> AsyncIterator[None]:
    """A process that reads a stream and is stopped in its tracks."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, url.replace("http", "ws", 1), stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline()
        os.kill(process.pid, signal.SIGSTOP)
        yield
    finally:
        process.kill()
        await process.wait()


async def flood(load: Load, batches: int) -> None:
    """More than the buffers of one connection hold."""
    for _ in range(batches):
        await load.ledger.persist(load.client, *(load.trade() for _ in range(1000)))


@pytest.mark.slow
@pytest.mark.fault("F24")
async def test_a_drain_does_not_wait_for_a_stopped_reader(plain: Database, figures: Callable[..., None]) -> None:
    with service(DATABASE_URL=plain.url) as one:
        url = await asyncio.to_thread(one.url)
        async with posting(url, SYMBOL) as load, stopped_reader(url), watching(url, [SYMBOL], "1m") as pairs:
            await flood(load, 5)
            account = await assert_held(plain.url, load, pairs)
            begun = time.monotonic()
            assert await asyncio.to_thread(one.stop) == 0
            took = time.monotonic() - begun
    assert took < STOPPED
    assert_quiet(one.log)
    figures("F24", exit_s=took, **account.figures)
