"""F17: the file system of the embedded server is full. What was acknowledged stays, and room is all that is needed.

The data directory lies on a small file system of its own, seen by the service alone.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest

from klines.embedded import running_url, wheel_binary
from klines.embedded.account import server_account
from klines.models import Trade
from tests.faults.load import Load, posting
from tests.faults.oracles import assert_exact, assert_quiet, connected
from tests.servers import reachable_directory
from tests.service.processes import Service, service

MEGABYTES = 400
LEFT = 6 * 2**20
SYMBOL = "PEPE"
ROWS = 2000
DEADLINE = 90
MOUNT = f'mount -t tmpfs -o size={MEGABYTES}m,mode=0711 klines "$0" && exec "$@"'
SMALL = 24
MOUNT_TABLES = f'mkdir "$0" && mount -t tmpfs -o size={SMALL}m,uid="$1",mode=0700 klines "$0" && shift && exec "$@"'


def may_mount() -> bool:
    """Whether this account can give a process a file system of its own."""
    if not shutil.which("unshare"):
        return False
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", "mount -t tmpfs klines /mnt"], capture_output=True, check=False
    )
    return tried.returncode == 0


@contextmanager
def confined() -> Iterator[tuple[Service, Path]]:
    """A service on a small file system, and where its data directory is to be seen from here."""
    with reachable_directory() as directory:
        directory.mkdir()
        prefix = ("unshare", "-m", "sh", "-c", MOUNT, str(directory))
        with service(*prefix, KLINES_DATA_DIR=str(directory)) as running:
            yield running, Path(f"/proc/{running.process.pid}/root{directory}")


def fill(data_dir: Path, left: int = LEFT) -> Path:
    """Leave next to no room; the file that takes it."""
    filler = data_dir / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(data_dir).free - left)
    return filler


def checked(url: str) -> None:
    """Fail if an index or a table is damaged."""
    command = [str(wheel_binary("pg_amcheck")), "--install-missing", "--heapallindexed", url]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def batch(numbers: Iterator[int], count: int) -> list[Trade]:
    """New trades, a microsecond after the other."""
    now = time.time_ns() // 1000
    return [Trade(SYMBOL, number, now - number, "1", "1", "buy") for number in itertools.islice(numbers, count)]


async def refused(load: Load, numbers: Iterator[int]) -> dict[str, int]:
    """Send batches until five were refused; with which codes."""
    codes: dict[str, int] = {}
    begun = time.monotonic()
    while sum(codes.values()) < 5:
        answer = await load.ledger.post(load.client, *batch(numbers, ROWS))
        assert answer is not None and answer.status_code in {200, 503}, answer
        if answer.status_code == 503:
            code = answer.json()["code"]
            codes[code] = codes.get(code, 0) + 1
        assert time.monotonic() < begun + DEADLINE, "it does not get full"
    return codes


@pytest.mark.slow
@pytest.mark.fault("F17")
@pytest.mark.skipif(not may_mount(), reason="needs the right to mount in a namespace of its own")
async def test_tables_without_room_are_told_and_go_on_when_there_is_some(figures: Callable[..., None]) -> None:
    """The log of PostgreSQL has room, its tables have not: it stays up, and says so."""
    numbers = itertools.count(1)
    with reachable_directory() as directory:
        tables = directory.parent / "tables"
        prefix = ("unshare", "-m", "sh", "-c", MOUNT_TABLES, str(tables), str(server_account().uid))
        environment = {"KLINES_DATA_DIR": str(directory), "KLINES_STORAGE_PROFILE": "plain"}
        with service(*prefix, **environment) as running:
            url = await asyncio.to_thread(running.url)
            database_url = running_url(directory)
            assert database_url
            seen = Path(f"/proc/{running.process.pid}/root{tables}")
            async with posting(url, SYMBOL) as load, connected(database_url) as connection:
                await connection.execute(f"CREATE TABLESPACE small LOCATION '{tables}'")
                await connection.execute("ALTER TABLE trades SET TABLESPACE small")
                await load.ledger.persist(load.client, *batch(numbers, ROWS))
                filler = fill(seen, 2**20)
                codes = await refused(load, numbers)
                ready = (await load.client.get("/health/ready")).json()
                assert (list(codes), ready["codes"]) == (["database_full"], ["database_full"])
                filler.unlink()
                await load.ledger.persist(load.client, *batch(numbers, 1))
                account = await assert_exact(database_url, load.client, load.ledger)
            assert await asyncio.to_thread(running.stop) == 0
    assert_quiet(running.log)
    figures("F17", codes=codes, **account.figures)


@pytest.mark.slow
@pytest.mark.fault("F17")
@pytest.mark.skipif(not may_mount(), reason="needs the right to mount in a namespace of its own")
async def test_a_full_disk_loses_nothing_and_heals_when_there_is_room(figures: Callable[..., None]) -> None:
    numbers = itertools.count(1)
    with confined() as (running, data_dir):
        url = await asyncio.to_thread(running.url)
        database_url = f"postgresql://klines@/klines?host={quote(str(data_dir / 'run'), safe='')}"
        async with posting(url, SYMBOL) as load:
            assert (await load.ledger.persist(load.client, *batch(numbers, ROWS))) == 1
            filler = fill(data_dir)
            codes = await refused(load, numbers)
            assert (await load.client.get("/health/live")).status_code == 200
            filler.unlink()
            freed = time.monotonic()
            await load.ledger.persist(load.client, *batch(numbers, 1))
            rto = time.monotonic() - freed
            account = await assert_exact(database_url, load.client, load.ledger)
            await asyncio.to_thread(checked, database_url)
        assert await asyncio.to_thread(running.stop) == 0
    assert_quiet(running.log)
    died = running.log.count("has died: starting it again")
    figures("F17", rto_s=rto, codes=codes, postmaster_died=died, **account.figures)
