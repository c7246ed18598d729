"""Streams of several processes: all push the same, a killed one leaves the others right, a drained one says so."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import httpx
import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from klines.models import Trade
from klines.server import GRACE_SECONDS
from tests.application import serving, settings_for
from tests.live.followers import (
    WATCHED,
    Follower,
    Writer,
    address_of,
    before,
    charted,
    following,
    poll,
    running,
    writer_of,
)
from tests.live.streams import DEADLINE, Chart, Tape
from tests.live.test_slow_clients import stalled
from tests.servers import Database
from tests.service.processes import Service, service

STOPPED = GRACE_SECONDS + 1.0  # what the machine takes to end a process is not the grace
WAITS = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
TARGET = f"/ws/transactions/{WATCHED}"


@contextmanager
def served(database: Database, count: int = 1, **environment: str) -> Iterator[list[tuple[Service, str]]]:
    """So many services on one database, each a process of its own with its URL."""
    workers = int(environment.get("WORKERS", "1"))
    with ExitStack() as stack:
        services = [stack.enter_context(service(DATABASE_URL=database.url, **environment)) for _ in range(count)]
        yield [(one, started(one, workers)) for one in services]


def started(one: Service, workers: int) -> str:
    url = one.url()
    for _ in range(workers - 1):
        one.wait_for(lambda line: "startup complete" in line)
    return url


class Crowd:
    """Followers of one token, of its trades and its seconds, on any services."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._stack = stack
        self.trades: list[Follower[Tape]] = []
        self.charts: list[Follower[Chart]] = []

    @property
    def all(self) -> list[Follower[Any]]:
        return [*self.trades, *self.charts]

    async def join(self, url: str) -> None:
        """Two more."""
        self.trades.append(await self._stack.enter_async_context(following(url, TARGET, Tape())))
        path = f"/ws/klines/{WATCHED}/1s"
        self.charts.append(await self._stack.enter_async_context(following(url, path, Chart("1s"), history=1000)))

    async def hold(self, writer: Writer) -> None:
        """All have been told all of it, in one order: the order of the commits."""
        committed = writer.committed[WATCHED]
        ids = [trade.trade_id for trade in committed]
        for follower in self.trades:
            await follower.until(lambda tape: len(tape.trades) >= len(ids))
            assert [row["trade_id"] for row in follower.log.trades] == ids
        for chart in self.charts:
            await charted(chart, committed)


@asynccontextmanager
async def crowd() -> AsyncIterator[Crowd]:
    async with AsyncExitStack() as stack:
        yield Crowd(stack)


async def hears(followers: list[Follower[Any]], more: int) -> None:
    """Wait until each of them has heard so many more messages."""
    marks = [len(follower.heard) for follower in followers]
    for follower, mark in zip(followers, marks, strict=True):
        await follower.until(lambda _, one=follower, mark=mark: len(one.heard) >= mark + more)  # type: ignore[misc]


def port_of(follower: Follower[Any]) -> int:
    assert follower.connection is not None
    port: int = follower.connection.local_address[1]
    return port


def clients_of(process: psutil.Process) -> set[int]:
    """The ports from which clients are connected to a process."""
    return {one.raddr.port for one in process.net_connections("tcp") if one.status == psutil.CONN_ESTABLISHED}


async def test_two_services_push_the_same_and_one_survives_the_other(plain: Database) -> None:
    with served(plain, 2) as ((first, here), (_, there)):
        async with writer_of(plain.url) as writer, crowd() as people:
            for url in (here, there):
                await people.join(url)
            mortal, lasting = people.all[::2], people.all[1::2]
            async with running(writer):
                await hears(people.all, 10)
                for follower in mortal:
                    follower.url = there
                assert first.stop(signal.SIGKILL) == -signal.SIGKILL
                await hears(people.all, 10)
            await people.hold(writer)
            assert [follower.codes for follower in lasting] == [[], []]
            assert [follower.codes for follower in mortal] == [[1006], [1006]]


async def test_a_killed_worker_leaves_the_others_clients_undisturbed(plain: Database) -> None:
    with served(plain, WORKERS="2") as [(running_service, url)]:
        workers = [
            child
            for child in psutil.Process(running_service.process.pid).children()
            if "spawn_main" in " ".join(child.cmdline())
        ]
        assert len(workers) == 2
        async with writer_of(plain.url) as writer, crowd() as people:
            victim, survivor = workers
            while not all(len(clients_of(worker) & set(map(port_of, people.all))) >= 2 for worker in workers):
                assert len(people.all) < 100, "one worker takes all connections"
                await people.join(url)
            doomed = [follower for follower in people.all if port_of(follower) in clients_of(victim)]
            async with running(writer):
                await hears(people.all, 5)
                victim.kill()
                await hears(people.all, 10)
            await people.hold(writer)
            for follower in people.all:
                assert follower.codes == ([1006] if follower in doomed else []), follower.codes
            assert survivor.is_running()


@pytest.mark.slow
async def test_a_worker_that_says_nothing_for_a_while_is_not_ended(plain: Database) -> None:
    with served(plain, WORKERS="2") as [(running_service, url)]:
        children = psutil.Process(running_service.process.pid).children()
        workers = [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        workers[0].suspend()
        # Five seconds are the server's own patience with a worker.
        until = time.monotonic() + 8
        async with httpx.AsyncClient(base_url=url, timeout=1) as client:
            while time.monotonic() < until:
                with suppress(httpx.TransportError):
                    await client.get("/health/ready")
        workers[0].resume()
        assert set(workers) <= set(psutil.Process(running_service.process.pid).children())
    assert "another takes its place" not in running_service.log


@pytest.fixture
async def posted(plain: Database) -> Database:
    """A database that knows one token."""
    async with writer_of(plain.url) as writer:
        await writer.commit(writer.trade(WATCHED))
    return plain


async def refused_for_room(url: str) -> bool:
    try:
        async with connect(f"{url.replace('http', 'ws', 1)}{TARGET}", proxy=None):
            return False
    except InvalidStatus as refused:
        assert refused.response.status_code == 503
        assert int(refused.response.headers["Retry-After"]) > 0
        assert json.loads(refused.response.body or b"")["code"] == "connections_exhausted"
        return True


async def test_places_come_back_when_clients_leave_or_are_cut(posted: Database) -> None:
    async with serving(settings_for(posted, max_connections=4)) as url:
        with before(url) as proxy:
            for end in ("leave", "cut", "abort") * 2:
                async with AsyncExitStack() as stack:
                    opened = [await stack.enter_async_context(joined(address_of(proxy))) for _ in range(4)]
                    assert await refused_for_room(url)
                    if end == "cut":
                        proxy.cut()
                    elif end == "abort":
                        for client in opened:
                            client.transport.abort()

                async def room() -> bool:
                    return not await refused_for_room(url)

                await poll(room, DEADLINE)
                async with AsyncExitStack() as stack:
                    for _ in range(4):
                        await poll(lambda: admitted(url, stack), DEADLINE)
                    assert await refused_for_room(url)
                await poll(room, DEADLINE)


async def admitted(url: str, stack: AsyncExitStack) -> bool:
    with suppress(InvalidStatus):
        await stack.enter_async_context(joined(url))
        return True
    return False


@asynccontextmanager
async def joined(url: str, target: str = TARGET) -> AsyncIterator[ClientConnection]:
    """A client that has its snapshot."""
    async with connect(f"{url.replace('http', 'ws', 1)}{target}", proxy=None, close_timeout=2) as client:
        await client.recv()
        yield client


async def code_of(client: ClientConnection) -> int | None:
    """Read to the end; the close code."""
    with suppress(ConnectionClosed):
        async with asyncio.timeout(DEADLINE):
            while True:
                await client.recv()
    return client.close_code


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_drain_tells_everyone_and_waits_for_no_stuck_reader(posted: Database, workers: str) -> None:
    with served(posted, WORKERS=workers) as [(one, url)]:
        async with AsyncExitStack() as stack, writer_of(posted.url) as writer:
            clients = [await stack.enter_async_context(joined(url)) for _ in range(20)]
            path = f"/ws/klines/{WATCHED}/1m"
            clients += [await stack.enter_async_context(joined(url, path)) for _ in range(5)]
            await stack.enter_async_context(stalled(url))
            codes = [asyncio.create_task(code_of(client)) for client in clients]
            reader = await stack.enter_async_context(following(url, TARGET, Tape()))
            await firehose(writer, 2_000)
            await reader.until(lambda tape: len(tape.trades) >= 2_000)
            begun = time.monotonic()
            assert await asyncio.to_thread(one.stop) == 0
            assert time.monotonic() - begun < STOPPED
            assert await asyncio.gather(*codes) == [1012] * 25
            # It comes back at once: the other worker may still be there to tell it the same.
            assert set(reader.codes) == {1012}
            assert "Traceback" not in one.log


async def firehose(writer: Writer, count: int) -> None:
    """Commit more than the buffers of one connection hold, less than its mailbox."""
    for first in range(0, count, 500):
        await writer.commit(*(writer.trade(WATCHED) for _ in range(min(500, count - first))))


async def locked(database: Database, stack: AsyncExitStack) -> asyncpg.Connection[Any]:
    """A connection whose transaction keeps trades of the token from being stored."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(database.url)
    stack.push_async_callback(connection.close)
    await connection.execute("BEGIN")
    await connection.execute("SELECT FROM klines_internal.feeds FOR UPDATE")
    return connection


async def post(url: str, trade: Trade) -> httpx.Response:
    async with httpx.AsyncClient(timeout=DEADLINE) as client:
        return await client.post(f"{url}/api/v1/trades", json={"trades": [trade._asdict()]})


async def test_a_request_that_is_under_way_finishes_in_a_drain(posted: Database) -> None:
    with served(posted) as [(one, url)]:
        async with AsyncExitStack() as stack, writer_of(posted.url) as writer, joined(url) as client:
            lock = await locked(posted, stack)
            trade = writer.trade(WATCHED)._replace(trade_id=77)
            posting = asyncio.create_task(post(url, trade))
            watcher = await asyncpg.connect(posted.url)
            stack.push_async_callback(watcher.close)
            await poll(lambda: watcher.fetchval(WAITS))
            leaving = asyncio.create_task(asyncio.to_thread(one.stop))
            assert await code_of(client) == 1012
            with pytest.raises(OSError):
                await asyncio.open_connection(urlsplit(url).hostname, urlsplit(url).port)
            assert not posting.done()
            await lock.execute("COMMIT")
            answer = await posting
            assert (answer.status_code, answer.json()["inserted"]) == (200, 1)
            assert await leaving == 0
            assert await watcher.fetchval("SELECT count(*) FROM trades WHERE trade_id = 77") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_a_second_signal_does_not_wait(posted: Database, workers: str) -> None:
    with served(posted, WORKERS=workers) as [(one, url)]:
        async with AsyncExitStack() as stack, writer_of(posted.url) as writer, joined(url) as client:
            await locked(posted, stack)
            posting = asyncio.create_task(post(url, writer.trade(WATCHED)._replace(trade_id=77)))
            watcher = await asyncpg.connect(posted.url)
            stack.push_async_callback(watcher.close)
            await poll(lambda: watcher.fetchval(WAITS))
            one.process.send_signal(signal.SIGTERM)
            assert await code_of(client) == 1012
            begun = time.monotonic()
            await asyncio.to_thread(one.stop)
            assert time.monotonic() - begun < 2
            with suppress(httpx.HTTPError):
                await posting


def test_workers_leave_when_their_supervisor_is_killed(plain: Database) -> None:
    with service(DATABASE_URL=plain.url, WORKERS="2") as one:
        one.url()
        children = psutil.Process(one.process.pid).children()
        workers = [child for child in children if "spawn_main" in str(child.cmdline())]
        assert len(workers) == 2
        one.process.send_signal(signal.SIGKILL)
        gone, alive = psutil.wait_procs(workers, timeout=30)
        assert (len(gone), alive) == (2, [])
