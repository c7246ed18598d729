"""`klines db copy`: everything comes over, once, in any profile, through any interruption; or nothing is written."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import asyncpg
import click.testing
import pytest

from klines.cli.copy import copy_command
from klines.database import open_engine, reading
from klines.embedded import running_url
from klines.errors import BadRequest, Conflict, KlinesError, Unavailable
from klines.importer.progress import Step
from klines.interval import Interval
from klines.queries import tokens, verify
from klines.transfer import contents
from klines.transfer.copying import Copied, copy_database
from klines.transfer.ends import prepare
from tests.backup.conftest import SYMBOLS, empty_database, fill, forget, holdings
from tests.conftest import PROFILES, allowed
from tests.live.followers import poll, running, writer_of
from tests.servers import Database, Server, reachable_directory
from tests.service.processes import klines, service

DEADLINE = 30
LATE = """
    INSERT INTO trades SELECT token_id, 999999, floor + INTERVAL '1 s', 0.5, 7, 'buy'
    FROM tokens, klines_internal.retention WHERE symbol IN ('AAA', 'OLD')
"""


async def copied(source: str, target: str, **options: Any) -> Copied:
    await prepare(source, target, "auto", 10)
    return await copy_database(source, target, **options)


@asynccontextmanager
async def both(source: str, target: str) -> AsyncIterator[tuple[Any, Any]]:
    """A connection of a foreign program to either side."""
    async with AsyncExitStack() as stack:
        opened = [await asyncpg.connect(url) for url in (source, target)]
        for one in opened:
            stack.push_async_callback(one.close)
        yield opened[0], opened[1]


@pytest.fixture
def pair(request: pytest.FixtureRequest, server: Server) -> Iterator[tuple[Database, Database]]:
    here, there = (allowed(server, profile) for profile in request.param)
    with server.database(here) as source, server.database(there) as target:
        yield source, target


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    # Odd, as trades come in pairs of one moment.
    monkeypatch.setattr(contents, "SLICE_ROWS", 299)


# Between two profiles with forgotten trades is the whole of it; the other ways are parts.
WAYS = [
    pytest.param((here, there), forgets, id=f"{here} to {there}, {'forgets' if forgets else 'keeps all'}", marks=marks)
    for here, there in itertools.product(PROFILES, PROFILES)
    for forgets in (True, False)
    for marks in [[] if forgets and (here != there or here == "plain") else [pytest.mark.slow]]
]


@pytest.mark.parametrize(("pair", "forgets"), WAYS, indirect=["pair"])
async def test_everything_comes_over_and_late_trades_go_on_making_its_bars(
    pair: tuple[Database, Database], forgets: bool
) -> None:
    source, target = pair
    async with both(source.url, target.url) as (here, there):
        await fill(here)
        if forgets:
            await forget(here, 5.13)
        done = await copied(source.url, target.url)
        assert (done.tokens, done.keys, done.bars_different, bool(done.forgotten_bars)) == (3, 1, 0, forgets)
        held = await holdings(here)
        assert await holdings(there) == held
        assert done.trades == len(held["trades"])
        assert (await copied(source.url, target.url)).trades == 0
        if forgets:
            # Into the buckets that the floor cuts: their bars are made of a rest and of trades.
            for side in (here, there):
                await side.execute(LATE)
        assert await holdings(there) == await holdings(here)
    assert await differing(target.url) == 0


async def differing(url: str) -> int:
    """What `klines verify` finds."""
    found = 0
    async with open_engine(url) as engine:
        for symbol in SYMBOLS:
            for interval in Interval:
                async with reading(engine) as connection:
                    token = await tokens.token_id(connection, symbol)
                    assert token is not None
                    found += (await verify.compare(connection, token, interval)).different
    return found


class Interrupted(Exception):
    """What stops a copy in the middle."""


def at(phase: str, act: Callable[[], object]) -> Callable[[Step], None]:
    """Do something at the second step of a phase."""
    steps = iter((None, act))

    def seen(step: Step) -> None:
        if step.phase == phase and (todo := next(steps, None)):
            todo()

    return seen


def interrupt() -> None:
    raise Interrupted


@pytest.mark.parametrize(
    "phase",
    ["copying", pytest.param("bars", marks=pytest.mark.slow), pytest.param("comparing", marks=pytest.mark.slow)],
)
async def test_an_interrupted_copy_goes_on_though_more_was_forgotten_meanwhile(
    plain: Database, other: Database, phase: str
) -> None:
    async with both(plain.url, other.url) as (here, there):
        await fill(here)
        await forget(here, 6.2)
        with pytest.raises(Interrupted):
            await copied(plain.url, other.url, on_progress=at(phase, interrupt))
        begun = await there.fetchval("SELECT count(*) FROM trades")
        await forget(here, 3.7)
        done = await copied(plain.url, other.url)
        assert done.bars_different == 0
        assert await holdings(there) == await holdings(here)
        # What had come before it was forgotten here is still there.
        assert (begun > 0) == (phase != "bars")
        assert await there.fetchval("SELECT count(*) FROM trades") >= max(begun, done.trades)


@pytest.mark.parametrize("side", ["target", pytest.param("source", marks=pytest.mark.slow)])
async def test_a_lost_connection_is_told_and_the_next_copy_goes_on(
    plain: Database, other: Database, server: Server, side: str
) -> None:
    name = (plain if side == "source" else other).name
    cut = f"""
        SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
        WHERE datname = '{name}' AND application_name = 'klines copy'
    """
    async with both(plain.url, other.url) as (here, there):
        await fill(here)
        with pytest.raises(Unavailable):
            await copied(plain.url, other.url, on_progress=at("copying", lambda: server.execute(cut)))
        assert (
            0 < await there.fetchval("SELECT count(*) FROM trades") < await here.fetchval("SELECT count(*) FROM trades")
        )
        assert (await copied(plain.url, other.url)).bars_different == 0
        assert await holdings(there) == await holdings(here)


async def test_a_source_that_is_written_to_is_caught_up_with(plain: Database, other: Database) -> None:
    async with both(plain.url, other.url) as (here, there), writer_of(plain.url, *SYMBOLS[:2]) as writer:
        await writer.register()
        async with running(writer):
            await poll(lambda: trades_of(here, 100))
            done = await copied(plain.url, other.url)
            assert done.bars_different == 0
            written = writer.count
            await poll(lambda: trades_of(here, written + 50))
        again = await copied(plain.url, other.url)
        assert again.bars_different == 0
        assert again.trades > 0
        assert await there.fetch("SELECT * FROM trades ORDER BY 3, 2") == await here.fetch(
            "SELECT * FROM trades ORDER BY 3, 2"
        )


async def trades_of(connection: asyncpg.Connection[Any], least: int) -> bool:
    count: int = await connection.fetchval("SELECT count(*) FROM trades")
    return count >= least


async def test_the_source_forgets_nothing_while_it_is_copied(plain: Database, other: Database) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%forget_trades%'"
    tasks: list[asyncio.Task[None]] = []
    async with both(plain.url, other.url) as (here, there):
        await fill(here)
        before = await holdings(here)
        assert await copied(plain.url, other.url, on_progress=at("copying", lambda: tasks.append(begin(here))))
        assert await holdings(there) == before
        await asyncio.wait_for(tasks[0], DEADLINE)
        assert not await there.fetchval(waiting)
        assert await here.fetchval("SELECT count(*) FROM trades") < len(before["trades"])


def begin(connection: asyncpg.Connection[Any]) -> asyncio.Task[None]:
    return asyncio.create_task(forget(connection, 5))


async def test_a_bar_that_differs_is_shown(plain: Database, other: Database) -> None:
    async with both(plain.url, other.url) as (here, there):
        await fill(here)
        await copied(plain.url, other.url)
        await there.execute(
            "UPDATE klines_internal.live_klines SET high = high + 1 WHERE seconds = 3600 AND trades > 1"
        )
        changed = await there.fetchval(
            "SELECT count(*) FROM klines_internal.live_klines WHERE seconds = 3600 AND trades > 1"
        )
        done = await copied(plain.url, other.url)
    assert done.bars_different == changed > 0
    assert {one.interval for one in done.differences} == {Interval.H1}
    assert (await copied(plain.url, other.url, verify=False)).bars_compared == 0


# --- Refused before anything is written


async def test_a_database_is_not_copied_onto_itself(plain: Database) -> None:
    with pytest.raises(BadRequest, match="is the database that is to be copied"):
        await copied(plain.url, plain.url)


async def test_a_target_with_something_of_its_own_is_refused(plain: Database, other: Database, server: Server) -> None:
    async with both(plain.url, other.url) as (here, there):
        await fill(here)
        await there.execute("INSERT INTO tokens (symbol) VALUES ('XXX')")
        with pytest.raises(BadRequest, match="holds tokens of its own"):
            await copied(plain.url, other.url)
        assert await there.fetchval("SELECT count(*) FROM tokens") == 1
        with server.database("plain") as third:
            await copied(plain.url, third.url)
            with pytest.raises(BadRequest, match="a copy of another database"):
                await copied(other.url, third.url)


async def test_trades_that_came_into_the_target_are_refused(plain: Database, other: Database) -> None:
    async with both(plain.url, other.url) as (here, there):
        await fill(here)
        await copied(plain.url, other.url)
        await there.execute(
            "INSERT INTO trades SELECT token_id, 7, now(), 1, 1, 'buy' FROM tokens WHERE symbol = 'OLD'"
        )
        with pytest.raises(BadRequest, match="that the source has not"):
            await copied(plain.url, other.url)


async def test_two_copies_into_one_database_are_one_too_many(plain: Database, other: Database) -> None:
    tasks: list[asyncio.Task[Copied]] = []
    async with both(plain.url, other.url) as (here, _):
        await fill(here)

        def second() -> None:
            tasks.append(asyncio.create_task(copied(plain.url, other.url)))

        await copied(plain.url, other.url, on_progress=at("copying", second))
        with pytest.raises(Conflict, match="another copy"):
            await tasks[0]


# --- The command


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("", 2, "is the database that is to be copied"),
        ("mysql://x", 2, "must start with postgresql://"),
        ("postgresql://127.0.0.1:1/x", 3, "cannot be used"),
    ],
)
def test_the_command_refuses_in_one_line(plain: Database, target: str, code: int, said: str) -> None:
    runner = click.testing.CliRunner()
    result = runner.invoke(copy_command, ["--to", target or plain.url], env={"DATABASE_URL": plain.url})
    assert isinstance(result.exception, KlinesError)
    assert (result.exception.exit_code, result.output) == (code, "")
    assert said in result.exception.detail
    assert "\n" not in result.exception.detail


def copying(target: str, **environment: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "klines", "db", "copy", "--to", target]
    return subprocess.Popen(command, env=os.environ | environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
async def test_a_killed_command_goes_on_when_it_is_run_again(
    plain: Database, server: Server, number: signal.Signals
) -> None:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(empty_database(server))
        here = await asyncpg.connect(plain.url)
        stack.push_async_callback(here.close)
        await fill(here)
        await here.execute(
            "INSERT INTO trades SELECT token_id, n, now() - n * INTERVAL '1 s', 1, 1, 'buy'"
            " FROM tokens, generate_series(1, 10000) AS n WHERE symbol <> 'OLD'"
        )
        await prepare(plain.url, url, "plain", 10)
        there = await asyncpg.connect(url)
        stack.push_async_callback(there.close)
        arrived = asyncio.Event()
        await there.add_listener("klines_v1", lambda *_: arrived.set())
        process = copying(url, DATABASE_URL=plain.url)
        async with asyncio.timeout(DEADLINE):
            await arrived.wait()
        process.send_signal(number)
        assert await asyncio.to_thread(process.wait, DEADLINE) != 0
        part = await there.fetchval("SELECT count(*) FROM trades")
        done = klines("db", "copy", "--to", url, "--json", DATABASE_URL=plain.url)
        assert done.returncode == 0, done.stderr
        told = json.loads(done.stdout)
        held = await holdings(here)
        assert 0 < part < len(held["trades"]) == part + told["trades"]
        assert await holdings(there) == held


@pytest.mark.slow
async def test_the_embedded_database_is_copied_while_its_service_writes(server: Server) -> None:
    with (
        empty_database(server) as url,
        reachable_directory() as directory,
        service(KLINES_DATA_DIR=str(directory), MOCK_DATA_INTERVAL="20", MOCK_HISTORY_MINUTES="3") as one,
    ):
        await asyncio.to_thread(one.url)
        here, there = running_url(directory), Database(url, "")
        assert here is not None
        async with both(here, there.url) as (source, target):
            await poll(lambda: trades_of(source, 300))
            first = await asyncio.to_thread(klines, "db", "copy", "--to", url, KLINES_DATA_DIR=str(directory))
            assert (first.returncode, ", 0 differ" in first.stdout) == (0, True), first.stdout + first.stderr
            await poll(lambda: trades_of(source, 600))
            assert await asyncio.to_thread(one.stop) == 0
            # Now the command starts the server itself.
            last = await asyncio.to_thread(klines, "db", "copy", "--to", url, KLINES_DATA_DIR=str(directory))
            assert (last.returncode, ", 0 differ" in last.stdout) == (0, True), last.stdout + last.stderr
            assert await target.fetchval("SELECT count(*) FROM trades") >= 600
