"""`docs/operations.md` cannot lie: its commands are run as they stand, and what they leave is compared."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from websockets.asyncio.client import connect

from klines.embedded import EmbeddedServer
from klines.embedded.account import server_account
from tests.application import serving, settings_for
from tests.backup.conftest import fill, forget, holdings
from tests.faults.oracles import connected
from tests.servers import Database, Server, reachable_directory
from tests.storage.bars import retire

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")
DEADLINE = 60

# What is not for users to see, and yet has to be the same: seams, what has retired, and the jobs, each once.
INSIDE = {
    "levels": "SELECT * FROM klines_internal.levels ORDER BY seconds",
    "live": "SELECT * FROM klines_internal.live_klines ORDER BY token_id, seconds, time",
    "feeds": "SELECT * FROM klines_internal.feeds ORDER BY token_id",
    "trades": "SELECT * FROM trades ORDER BY token_id, time, trade_id",
    "floor": "SELECT floor FROM klines_internal.retention",
}
INSIDE_TIMESCALE = {
    "jobs": "SELECT job_id, proc_name, config, schedule_interval FROM timescaledb_information.jobs ORDER BY 1",
    "chunks": "SELECT hypertable_name, range_start, is_compressed FROM timescaledb_information.chunks ORDER BY 1, 2",
    "seconds": "SELECT * FROM klines_internal.aggregate_1s ORDER BY token_id, time",
    "days": "SELECT * FROM klines_internal.aggregate_1d ORDER BY token_id, time",
}


def commands(title: str) -> list[str]:
    """The blocks of commands of a section, without those of the sections below it."""
    text = PAGE if title == "Operations" else re.split(rf"^##+ {re.escape(title)}$", PAGE, flags=re.M)[1]
    blocks = re.findall(r"```console\n(.*?)```", re.split(r"^##", text, flags=re.M)[0], re.S)
    assert blocks, title
    return [re.sub(r"^\$ ", "", block, flags=re.M) for block in blocks]


def run(directory: Path, *titles: str, **environment: str) -> str:
    """Run all commands of these sections in a shell; what they print."""
    script = "\n".join(["set -eu", *commands("Operations"), *(block for title in titles for block in commands(title))])
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | environment,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def cursor_of(url: str, **query: str) -> dict[str, Any]:
    """The snapshot of a stream of trades."""
    asked = "&".join(f"{name}={value}" for name, value in query.items())
    async with connect(f"{url.replace('http', 'ws', 1)}/ws/transactions/AAA?{asked}", proxy=None) as socket:
        told: dict[str, Any] = json.loads(await socket.recv())
        return told


async def everything(connection: asyncpg.Connection[Any], profile: str) -> dict[str, Any]:
    inside = INSIDE | (INSIDE_TIMESCALE if profile == "timescale" else {})
    return await holdings(connection) | {name: await connection.fetch(query) for name, query in inside.items()}


async def test_a_restored_dump_is_the_same_and_goes_on(database: Database, empty: str, tmp_path: Path) -> None:
    async with connected(database.url) as here:
        await fill(here)
        if database.profile == "timescale":
            await retire(here, "2 days")
        await forget(here, 7.3)
        if database.profile == "timescale":
            await here.execute("SELECT compress_chunk(c) FROM show_chunks('trades', older_than => INTERVAL '4 days') c")
        held = await everything(here, database.profile)
        async with serving(settings_for(database)) as url:
            cursor = (await cursor_of(url))["cursor"]
            assert (await cursor_of(url, cursor=cursor))["recovered"] is True

    run(tmp_path, "Backup", DATABASE_URL=database.url)
    restoring = f"Restore the {database.profile.replace('timescale', 'Timescale')} profile"
    printed = run(tmp_path, "Restore", restoring, "After a restore", DATABASE_URL=database.url, RESTORED=empty)
    assert len(re.findall(r"bars compared, 0 differ$", printed, re.M)) == 7

    restored = Database(empty, database.profile)
    async with connected(empty) as there:
        assert await everything(there, database.profile) == held
        await goes_on(there, restored, cursor)


async def goes_on(there: asyncpg.Connection[Any], restored: Database, cursor: str) -> None:
    """It takes trades, late ones too, retires, is right, and does not continue the other one's streams."""
    now = time.time_ns() // 1_000_000
    trade = {"symbol": "AAA", "price": "7.5", "amount": "2", "side": "buy"}
    fresh = [trade | {"trade_id": 900_000 + n, "time": now - n * 86_400_000} for n in range(6)]
    async with serving(settings_for(restored)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await cursor_of(url, cursor=cursor))["recovered"] is False
        answer = await client.post("/api/v1/trades", json={"trades": fresh})
        assert answer.json()["inserted"] == 6, answer.text
    if restored.profile == "timescale":
        live = "SELECT count(*) FROM klines_internal.live_klines WHERE time < now() - INTERVAL '3 days' AND seconds = 1"
        assert await there.fetchval(live) == 3
        await retire(there, "2 days")
        assert await there.fetchval(live) == 0
        assert not await there.fetchval("SELECT count(*) FROM klines_internal.disagreements")
    sums = await there.fetch(
        "SELECT sum(trades), sum(volume) FROM klines_1s UNION ALL SELECT sum(trades), sum(volume) FROM klines_1d"
    )
    assert sums[0] == sums[1]


@pytest.mark.slow
async def test_a_physical_backup_starts_as_the_embedded_server(server: Server, plain: Database, tmp_path: Path) -> None:
    if server.kind != "embedded":
        pytest.skip(f"its files are not within reach ({server.kind})")
    async with connected(plain.url) as here:
        await fill(here)
        held = await holdings(here)
    run(tmp_path, "Physical backup", DATABASE_URL=plain.url)
    with reachable_directory() as directory:
        directory.mkdir(mode=0o711)
        cluster = Path(shutil.move(tmp_path / "base", directory / "postgres"))
        if (account := server_account()).switched:
            for path in (cluster, *cluster.rglob("*")):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
        with EmbeddedServer(directory) as other:
            async with connected(Server(other.url, "embedded").database_url(plain.name)) as there:
                assert await holdings(there) == held


@pytest.mark.slow
async def test_upgrading_finds_nothing_to_do(timescale: Database, tmp_path: Path) -> None:
    printed = await asyncio.to_thread(
        run, tmp_path, "Upgrading TimescaleDB", "Upgrading klines", DATABASE_URL=timescale.url
    )
    assert printed.count("storage profile timescale") == 2


async def test_moving_to_another_server(plain: Database, empty: str, tmp_path: Path) -> None:
    async with connected(plain.url) as here:
        await fill(here)
        printed = run(tmp_path, "Moving to another server", DATABASE_URL=plain.url, TARGET=empty)
        assert printed.count(" differ") == printed.count(", 0 differ") == 2
        async with connected(empty) as there:
            assert await holdings(there) == await holdings(here)


def test_every_block_is_run() -> None:
    sections = {
        title for title, text in re.findall(r"^##* (.+)\n((?:(?!^#).*\n)*)", PAGE, re.M) if "```console" in text
    }
    tested = set(re.findall(r'"([A-Z][A-Za-z ]+)"', Path(__file__).read_text("utf-8"))) | {
        f"Restore the {profile} profile" for profile in ("plain", "Timescale")
    }
    assert sections <= tested
