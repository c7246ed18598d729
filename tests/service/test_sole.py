"""Work that one process does: who waits for the lock, who holds it, and what happens when the server is silent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from klines import sole
from klines.sole import Holder, Sole, kept_running
from tests.live.proxy import Proxy, through, upstream_of
from tests.servers import Database

DEADLINE = 20
ASKING = (
    "SELECT pid, query_start FROM pg_stat_activity"
    " WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%' AND pid <> $1"
)
SLEEPING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'"
SETTINGS = "SELECT name, reset_val FROM pg_settings WHERE source = 'client' AND name = ANY ($1)"
LASTING = {
    "idle_session_timeout": "0",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
}


class Work:
    """Says each time that it holds the lock, then waits, runs a statement, and goes on for ever."""

    def __init__(self, statement: str = "SELECT 1") -> None:
        self.may_run = asyncio.Event()
        self.failed = asyncio.Event()
        self._holders: asyncio.Queue[Holder] = asyncio.Queue()
        self._statement = statement

    async def __call__(self, holder: Holder) -> None:
        self._holders.put_nowait(holder)
        await self.may_run.wait()
        try:
            await holder.connection.execute(self._statement)
        except BaseException:
            self.failed.set()
            raise
        await asyncio.Event().wait()

    async def begun(self) -> Holder:
        """The next holder with whom it begins."""
        async with asyncio.timeout(DEADLINE):
            return await self._holders.get()


@pytest.fixture
def proxy(plain: Database) -> Iterator[Proxy]:
    with Proxy(upstream_of(plain.url)) as opened:
        yield opened


@pytest.fixture
async def psql(plain: Database) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of a foreign program."""
    opened = await asyncpg.connect(plain.url)
    yield opened
    await opened.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sole, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(sole, "CONNECT_SECONDS", 1)


async def test_who_waits_asks_again_on_one_connection(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    first, second = Work(), Work()
    async with AsyncExitStack() as stack:
        async with kept_running(plain.url, Sole.TAPE_SWEEP, first):
            holder = await first.begun()
            await stack.enter_async_context(kept_running(through(proxy, plain.url), Sole.TAPE_SWEEP, second))
            asked: set[tuple[int, object]] = set()
            async with asyncio.timeout(DEADLINE):
                # One asking has up to three times: it is parsed, bound and executed.
                while len(asked) < 9:
                    asked |= {tuple(row) for row in await psql.fetch(ASKING, holder.connection.get_server_pid())}
        await second.begun()
        assert len({pid for pid, _ in asked}) == 1
        assert proxy.count == 1


async def test_a_statement_without_an_answer_is_given_up(
    plain: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole, "WRITE_SECONDS", 1)
    work = Work()
    async with kept_running(through(proxy, plain.url), Sole.TAPE_SWEEP, work):
        await work.begun()
        proxy.blackhole()
        work.may_run.set()
        async with asyncio.timeout(DEADLINE):
            await work.failed.wait()
        proxy.restore()
        assert (await work.begun()).holds


async def test_asking_without_an_answer_is_given_up(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole, "READ_SECONDS", 1)
    first, second = Work(), Work()
    async with kept_running(plain.url, Sole.RETENTION, first):
        holder = await first.begun()
        async with kept_running(through(proxy, plain.url), Sole.RETENTION, second):
            async with asyncio.timeout(DEADLINE):
                while not await psql.fetch(ASKING, holder.connection.get_server_pid()):
                    pass
            proxy.blackhole()
            # The asking one, one that would cancel its statement, and one that begins anew.
            await proxy.connected(3)


async def test_a_silent_server_keeps_nobody_from_ending(
    plain: Database, psql: asyncpg.Connection[Any], proxy: Proxy
) -> None:
    work = Work(f"SELECT pg_sleep({2 * DEADLINE})")
    work.may_run.set()
    async with asyncio.timeout(DEADLINE) as ending:
        async with kept_running(through(proxy, plain.url), Sole.TAPE_SWEEP, work):
            while not await psql.fetchval(SLEEPING):
                pass
            proxy.blackhole()
    assert work.failed.is_set()
    assert not ending.expired()


@pytest.mark.parametrize(("which", "seconds"), [(Sole.TAPE_SWEEP, 60), (Sole.RETENTION, 21_600)])
async def test_the_server_lets_go_of_who_is_gone(plain: Database, which: Sole, seconds: int) -> None:
    # Told by the values at the start of the session: a Unix socket has no keepalives to show.
    work = Work()
    async with kept_running(plain.url, which, work):
        connection = (await work.begun()).connection
        rows = await connection.fetch(SETTINGS, [*LASTING, "statement_timeout"])
    assert dict(rows) == LASTING | {"statement_timeout": str(seconds * 1000)}


async def test_work_that_leaves_its_connection_idle_ends_when_it_is_cut_off(
    plain: Database, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sole, "PROBE_SECONDS", 0.2)
    ended = asyncio.Event()
    holders: asyncio.Queue[Holder] = asyncio.Queue()

    async def idle(holder: Holder) -> None:
        holders.put_nowait(holder)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with kept_running(through(proxy, plain.url), Sole.MOCK_FEED, idle), asyncio.timeout(DEADLINE):
        holder = await holders.get()
        # Probes that are answered end nothing.
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await ended.wait()
        proxy.blackhole()
        await ended.wait()
        assert not holder.holds
        proxy.restore()
        assert (await holders.get()).holds
