"""Upgrades under traffic: a service of the version before goes on, nothing is lost, and no writer waits for long.

The old service is the last commit before revision 0007, taken out of git; without git it is skipped.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from klines import migrations
from klines.embedded import EmbeddedServer, running_url
from klines.errors import CannotStart
from klines.transfer import ends
from tests.application import serving, settings_for
from tests.faults.oracles import connected
from tests.live.followers import WATCHED, following, poll, running, writer_of
from tests.live.streams import Tape, wire
from tests.servers import Database, Server, reachable_directory
from tests.service.processes import klines, service

ROOT = Path(__file__).parents[2]
DEADLINE = 60
OLD = "0006_analyst"
ADDED = "alembic/versions/0007_keys.py"
# What no writer and no reader stands in the way of, but every change of the table's owner or shape.
IN_THE_WAY = "LOCK TABLE klines_internal.live_klines IN ACCESS SHARE MODE"
REVISION = "SELECT version_num FROM alembic_version"
# A lock is waited for half a second; the rest is the machine's.
LONGEST_BLOCK = 2.5


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the version before."""
    first = git("log", "--diff-filter=A", "--format=%H", "-1", "--", ADDED)
    packed = git("archive", f"{first}^" if first else "HEAD", "src", "alembic", text=False)
    if not packed:
        pytest.skip("not a git checkout with the history of the version before")
    directory = tmp_path_factory.mktemp("old")
    subprocess.run(["tar", "-x", "-C", directory], input=packed, check=True)
    return directory / "src"


def git(*arguments: str, text: bool = True) -> Any:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=text, check=False)
    return (done.stdout.strip() if text else done.stdout) if done.returncode == 0 else ""


@pytest.fixture
def before(old: Path, profile: str, empty: str) -> Database:
    """A database as the version before made it."""
    done = klines("db", "upgrade", DATABASE_URL=empty, KLINES_STORAGE_PROFILE=profile, PYTHONPATH=str(old))
    assert f"revision {OLD} of {OLD}" in done.stdout, done.stderr
    return Database(empty, profile)


class Poster:
    """Posts a trade at a time; `slowest` is the longest that an answer took."""

    def __init__(self, url: str) -> None:
        self.acknowledged: list[int] = []
        self.slowest = 0.0
        self._url = url
        self._over = asyncio.Event()

    async def run(self) -> None:
        async with httpx.AsyncClient(base_url=self._url, timeout=DEADLINE) as client:
            for number in itertools.takewhile(lambda _: not self._over.is_set(), itertools.count(1)):
                trade = {"symbol": "POST", "trade_id": number, "time": time.time_ns() // 1_000_000}
                begun = time.monotonic()
                answer = await client.post(
                    "/api/v1/trades", json={"trades": [trade | {"price": "1", "amount": "1", "side": "buy"}]}
                )
                self.slowest = max(self.slowest, time.monotonic() - begun)
                if answer.status_code == 200:
                    self.acknowledged.append(number)
                await asyncio.sleep(0)

    def end(self) -> None:
        self._over.set()


@asynccontextmanager
async def posting(url: str) -> AsyncIterator[Poster]:
    poster = Poster(url)
    task = asyncio.create_task(poster.run())
    try:
        yield poster
    finally:
        poster.end()
        await task


@contextmanager
def upgrading(url: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "klines", "db", "upgrade"],
        env=os.environ | {"DATABASE_URL": url},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def end_in_the_middle(url: str, number: signal.Signals) -> None:
    """End an upgrade once it has tried, and while it tries again."""
    with upgrading(url) as process:
        assert process.stderr is not None
        # Not without an end of its own: no StopIteration can leave a thread that is awaited.
        said = next((line for line in process.stderr if "could not get" in line), "")
        assert "a lock on klines_internal.live_klines, held by pid" in said
        process.send_signal(number)
        assert process.wait(DEADLINE) == -number


async def more(poster: Poster, count: int = 20) -> None:
    wanted = len(poster.acknowledged) + count

    async def enough() -> bool:
        return len(poster.acknowledged) >= wanted

    await poll(enough)


@pytest.mark.fault("F50")
@pytest.mark.parametrize("number", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
async def test_an_upgrade_under_traffic_loses_nothing_however_often_it_is_ended(
    before: Database, old: Path, number: signal.Signals, figures: Callable[..., None]
) -> None:
    with service(DATABASE_URL=before.url, PYTHONPATH=str(old)) as one:
        url = await asyncio.to_thread(one.url)
        async with (
            connected(before.url) as psql,
            writer_of(before.url) as writer,
            following(url, f"/ws/transactions/{WATCHED}", Tape()) as follower,
        ):
            async with running(writer), posting(url) as poster:
                await more(poster)
                calm = poster.slowest
                async with psql.transaction():
                    await psql.execute(IN_THE_WAY)
                    with pytest.raises(CannotStart, match=r"stays at revision 0006_analyst: for 0.5 s .* a lock on"):
                        await migrations.upgrade(before.url, seconds=0.5)
                    await asyncio.to_thread(end_in_the_middle, before.url, number)
                    assert await psql.fetchval(REVISION) == OLD
                    assert not await psql.fetchval("SELECT to_regclass('klines_internal.api_keys')")
                begun = time.monotonic()
                done = await asyncio.to_thread(klines, "db", "upgrade", DATABASE_URL=before.url)
                took = time.monotonic() - begun
                assert done.returncode == 0, done.stderr
                assert await psql.fetchval(REVISION) != OLD
                await more(poster)
            await follower.until(lambda tape: len(tape.trades) >= writer.count)
            assert follower.log.trades == wire(*writer.committed[WATCHED])
            stored = await psql.fetch("SELECT trade_id FROM trades JOIN tokens USING (token_id) WHERE symbol = 'POST'")
            lost = set(poster.acknowledged) - {row[0] for row in stored}
            assert (lost, len(stored), follower.codes) == (set(), len({row[0] for row in stored}), [])
            assert poster.slowest < LONGEST_BLOCK
    figures(
        "F50",
        longest_block_s=poster.slowest,
        calm_s=calm,
        upgrade_s=took,
        acknowledged=len(poster.acknowledged),
        lost=len(lost),
        duplicated=0,
    )
    await speaks_of_its_version(before, old)


async def speaks_of_its_version(after: Database, old: Path) -> None:
    """The old version does not start on what it does not know, and the new one does."""
    refused = await asyncio.to_thread(klines, "serve", DATABASE_URL=after.url, PORT="0", PYTHONPATH=str(old))
    assert (refused.returncode, refused.stderr.count("\n")) == (3, 1)
    assert "this version needs 0006_analyst" in refused.stderr
    async with serving(settings_for(after)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/api/v1/klines/POST")).json()["klines"]


@pytest.mark.fault("F51")
async def test_a_schema_of_a_later_version_does_not_stop_a_service_but_is_refused_at_a_start(
    plain: Database, figures: Callable[..., None]
) -> None:
    body = {
        "trades": [
            {"symbol": "A", "trade_id": 1, "time": 1_700_000_000_000, "price": "1", "amount": "1", "side": "buy"}
        ]
    }
    async with (
        serving(settings_for(plain)) as url,
        httpx.AsyncClient(base_url=url) as client,
        connected(plain.url) as psql,
    ):
        await psql.execute("UPDATE alembic_version SET version_num = '9999_later'")
        assert (await client.post("/api/v1/trades", json=body)).json()["inserted"] == 1
        assert (await client.get("/api/v1/klines/A")).status_code == 200
    for command in (("serve",), ("db", "upgrade")):
        done = await asyncio.to_thread(klines, *command, DATABASE_URL=plain.url, PORT="0")
        assert (done.returncode, done.stderr.count("\n")) == (3, 1), done.stderr
        assert "9999_later, which this version does not know" in done.stderr
    async with connected(plain.url) as psql:
        assert await psql.fetchval(REVISION) == "9999_later"
    figures("F51", running="goes on", start="refused with exit 3")


@pytest.mark.slow
async def test_two_upgrades_at_once_are_one_after_the_other(empty: str) -> None:
    commands = [asyncio.to_thread(klines, "db", "upgrade", DATABASE_URL=empty) for _ in range(2)]
    first, second = await asyncio.gather(*commands)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == second.stdout
    assert (await migrations.check(empty)).current


@pytest.mark.slow
@pytest.mark.fault("F26")
@pytest.mark.timeout(600)
async def test_sigterm_during_the_migration_leaves_all_of_it_or_nothing(figures: Callable[..., None]) -> None:
    states: Counter[str] = Counter()
    with reachable_directory() as directory:
        for step in range(30):
            with service(KLINES_DATA_DIR=str(directory)) as one:
                await asyncio.to_thread(one.wait_for, lambda line: "started PostgreSQL" in line)
                await asyncio.sleep(step * 0.05)
                code = await asyncio.to_thread(one.stop)
            assert code == 0, one.log
            assert running_url(directory) is None
            with EmbeddedServer(directory) as server:
                found = await migrations.status(server.url)
                assert found.current in {None, found.newest}
                states["empty" if found.current is None else "migrated"] += 1
                async with connected(Server(server.url, "embedded").database_url("postgres")) as psql:
                    await psql.execute("DROP DATABASE klines WITH (FORCE)")
    figures("F26", steps=30, **states)
    assert len(states) == 2


async def test_an_address_may_say_how_long_to_wait_for_a_connection(plain: Database) -> None:
    address = f"{plain.url}{'&' if '?' in plain.url else '?'}connect_timeout=7"
    found = await migrations.upgrade(address)
    assert found.current == found.newest
    async with ends.connected(address) as connection:
        assert await connection.fetchval("SELECT 1") == 1
