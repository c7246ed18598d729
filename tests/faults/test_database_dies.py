"""F01: the embedded server's postmaster is killed under traffic. The service starts it again by itself, every time."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from klines.embedded import running_url
from tests.faults.load import assert_held, posting, watching
from tests.faults.oracles import assert_quiet
from tests.live.followers import poll
from tests.servers import reachable_directory
from tests.service.processes import Service, service

SYMBOLS = ("PEPE", "WIF")
ROUNDS = [pytest.param(1, id="1"), pytest.param(20, id="20", marks=[pytest.mark.slow, pytest.mark.timeout(900)])]


def postmaster(data_dir: Path) -> int:
    """Its process, by its own file."""
    return int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])


async def killed(data_dir: Path) -> float:
    """Kill the postmaster, and wait until another one accepts connections; when it was killed."""
    victim, moment = postmaster(data_dir), time.monotonic()
    os.kill(victim, signal.SIGKILL)

    async def succeeded() -> bool:
        try:
            words = (data_dir / "postgres" / "postmaster.pid").read_text().split()
        except FileNotFoundError:
            return False
        return int(words[0]) != victim and words[-1] == "ready"

    await poll(succeeded)
    return moment


def serving_servers(data_dir: Path) -> int:
    """How many postmasters work on the cluster: processes of PostgreSQL there whose parent is none."""
    cluster = os.path.realpath(data_dir / "postgres")
    found = 0
    for process in psutil.process_iter():
        try:
            if process.name() == "postgres" and process.cwd() == cluster:
                parent = process.parent()
                found += parent is None or parent.name() != "postgres"
        except psutil.Error:
            continue
    return found


@pytest.mark.fault("F01")
@pytest.mark.parametrize("rounds", ROUNDS)
async def test_a_killed_postmaster_is_started_again(rounds: int, figures: Callable[..., None]) -> None:
    outages, resumed = [], []
    with reachable_directory() as data_dir, service(KLINES_DATA_DIR=str(data_dir)) as running:
        url = running.url()
        async with posting(url, *SYMBOLS) as load, watching(url, SYMBOLS) as pairs:
            load.begin(4)
            for _ in range(rounds):
                await load.more(20)
                await load.moment(0.3)
                moment = await killed(data_dir)
                resumed.append(await load.back(time.monotonic()))
                outages.append(time.monotonic() - moment)
                assert serving_servers(data_dir) == 1
            database_url = running_url(data_dir)
            assert database_url
            account = await assert_held(database_url, load, pairs)
            for pair in pairs.values():
                pair.stayed()
            answers = load.ledger.answers
            assert answers.keys() <= {200, 503}, answers
        # A stop while it is down, or is just being started, stays a stop.
        os.kill(postmaster(data_dir), signal.SIGKILL)
        assert await asyncio.to_thread(running.stop) == 0
        assert serving_servers(data_dir) == 0
    assert_quiet(running.log)
    assert running.log.count("has died: starting it again") in {rounds, rounds + 1}
    codes = {f"http_{code}": count for code, count in answers.items()}
    figures("F01", kills=rounds, rto_s=max(outages), resumed_s=max(resumed), **account.figures, gaps=0, codes=codes)


@pytest.mark.slow
async def test_a_stop_of_several_processes_while_the_server_is_down_stays_a_stop() -> None:
    with reachable_directory() as data_dir, service(KLINES_DATA_DIR=str(data_dir), WORKERS="2") as running:
        running.url()
        running.wait_for(lambda line: "startup complete" in line)
        os.kill(postmaster(data_dir), signal.SIGKILL)
        await asyncio.to_thread(told, running, "has died")
        assert await asyncio.to_thread(running.stop) == 0
        assert serving_servers(data_dir) == 0
    assert_quiet(running.log)


def told(running: Service, words: str) -> str:
    return running.has_said(lambda line: words in line)
