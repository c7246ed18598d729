"""Logins that may less than the administrator: one that migrates, and analysts, who are watched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from klines.cli.target import granted
from klines.credential import KEY_PREFIX
from klines.queries import roles
from klines.watch import end_long_sessions
from tests.roles.logins import Cluster, connected, said
from tests.servers import Database


async def test_a_migrator_migrates_and_grants_again(cluster: Cluster) -> None:
    cluster.server.template("plain")
    with cluster.server.database("plain") as made:
        await granted(made.url)
        password = cluster.login("klines_test_migrator", "IN ROLE klines_migrator")
        member = cluster.member(made, "klines_test_migrator", password)
        async with connected(made.url) as administrator, connected(member.url) as connection:
            await administrator.execute("REVOKE SELECT ON klines_internal.tape FROM klines_reader")
            # What a later migration makes belongs to the login at first, and to the owner after the upgrade.
            await connection.execute("CREATE TABLE klines_internal.later (id integer)")
            assert await connection.fetchval("SELECT klines_internal.grant_roles_v1()") == []
            owner = "SELECT relowner::regrole::text FROM pg_class WHERE oid = 'klines_internal.later'::regclass"
            assert await administrator.fetchval(owner) == "klines_owner"
            reads = "SELECT has_table_privilege('klines_reader', 'klines_internal.tape', 'SELECT')"
            assert await administrator.fetchval(reads) is True
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("CREATE ROLE mine")
        upgraded = await asyncio.to_thread(said, "db", "upgrade", DATABASE_URL=member.url)
        assert "least that it needs" in upgraded
        key = await asyncio.to_thread(said, "keys", "create", "ci", DATABASE_URL=member.url)
        assert key.startswith(KEY_PREFIX)
    cluster.server.execute("DROP ROLE klines_test_migrator")


@pytest.fixture
def watched(cluster: Cluster) -> Iterator[Database]:
    """A database with an analyst of the name klines_test_ada."""
    cluster.server.template("plain")
    with cluster.server.database("plain") as made:
        password = cluster.login("klines_test_ada", "IN ROLE klines_analyst")
        yield cluster.member(made, "klines_test_ada", password)
    cluster.server.execute("DROP ROLE klines_test_ada")


@asynccontextmanager
async def watching(url: str, seconds: int) -> AsyncIterator[None]:
    """The watch at work, as in the service."""

    class Holder:
        def __init__(self, connection: asyncpg.Connection[Any]) -> None:
            self.connection = connection
            self.holds = True

    async with connected((await roles.addresses(url)).writing) as connection:
        task = asyncio.create_task(end_long_sessions(seconds, Holder(connection)))  # type: ignore[arg-type]
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])


async def gone(connection: asyncpg.Connection[Any]) -> None:
    """Wait until the server has ended a connection."""
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    async with asyncio.timeout(20):
        if not connection.is_closed():
            await ended.wait()


@pytest.mark.parametrize("how", ["a statement", "a transaction"])
async def test_what_lasts_too_long_is_ended(cluster: Cluster, watched: Database, how: str) -> None:
    administrator = cluster.server.database_url(watched.name)
    async with connected(watched.url) as analyst, connected(administrator) as bystander:
        await analyst.execute("SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0")
        await bystander.execute("BEGIN; SELECT 1")
        if how == "a transaction":
            await analyst.execute("BEGIN; SELECT 1")
        else:
            asleep = asyncio.create_task(analyst.execute("SELECT pg_sleep(600)"))
        async with watching(administrator, 1):
            await gone(analyst)
        if how == "a statement":
            with pytest.raises(asyncpg.PostgresError):
                await asleep
        assert await bystander.fetchval("SELECT 1") == 1


async def test_who_may_write_is_no_analyst(cluster: Cluster, watched: Database) -> None:
    cluster.server.execute("GRANT klines_writer TO klines_test_ada")
    administrator = cluster.server.database_url(watched.name)
    async with connected(watched.url) as writer, connected(administrator) as connection:
        await writer.execute("BEGIN; SELECT pg_sleep(1.1)")
        assert await connection.fetch("SELECT * FROM klines_internal.end_analyst_sessions_v1(1)") == []


@pytest.mark.slow
@pytest.mark.fault("F47")
async def test_a_listener_that_idles_while_the_queue_fills_is_ended(
    cluster: Cluster, watched: Database, figures: Callable[..., None]
) -> None:
    administrator = cluster.server.database_url(watched.name)
    loop = asyncio.get_running_loop()
    async with connected(watched.url) as analyst, connected(administrator) as ringing:
        await analyst.execute("SET idle_in_transaction_session_timeout = 0; LISTEN klines_v1")
        await analyst.execute("BEGIN; SELECT 1")
        begun = loop.time()
        usage = 0.0
        while (usage := await ringing.fetchval("SELECT pg_notification_queue_usage()")) < 0.1:
            await ringing.execute("SELECT pg_notify('klines_v1', repeat('1', 7000))")
        # Long before the transaction has lasted as long as it may.
        async with watching(administrator, 8):
            await gone(analyst)
        ended = loop.time() - begun
        async with asyncio.timeout(20):
            while (left := await ringing.fetchval("SELECT pg_notification_queue_usage()")) >= usage:
                await ringing.execute("SELECT pg_notify('klines_v1', '1')")
    figures("F47", queue_before=usage, queue_after=left, ended_s=ended)
