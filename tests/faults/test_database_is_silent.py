"""F08, F12, F16: a database that says nothing, one whose connections are all in use, and readers who hang up.

Requests end in time with 503, nobody waits for what will not come, and everything goes on by itself afterwards.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from tests.application import serving, settings_for
from tests.faults.load import assert_held, posting, watching
from tests.faults.oracles import connected
from tests.live.followers import poll
from tests.live.power import Power, powered
from tests.servers import Database

PROMISED = 6.0
QUICK = 1.0
READS = ("/api/v1/klines/PEPE", "/api/v1/trades/PEPE", "/api/v1/tokens", "/udf/symbols?symbol=PEPE")
ACTIVE = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = 'klines' AND state = 'active' AND wait_event_type = 'Lock'
"""
SESSIONS = (
    "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'klines%'"
)
LOCK = "LOCK TABLE klines_internal.live_klines, trades IN ACCESS EXCLUSIVE MODE"


def signalled(power: Power, number: signal.Signals) -> None:
    """Send it to all processes of the server."""
    postmaster = psutil.Process(power.postmaster)
    for process in [postmaster, *postmaster.children(recursive=True)]:
        process.send_signal(number)


async def timed(client: httpx.AsyncClient, path: str) -> tuple[float, httpx.Response]:
    """How long an answer took, and the answer."""
    begun = time.monotonic()
    answer = await client.get(path)
    return time.monotonic() - begun, answer


@pytest.mark.fault("F08")
@pytest.mark.parametrize("seconds", [pytest.param(0, id="short"), pytest.param(30, id="30s", marks=pytest.mark.slow)])
async def test_a_paused_database_costs_nobody_more_than_the_deadline(
    seconds: float, figures: Callable[..., None]
) -> None:
    async with (
        powered() as (power, database),
        serving(settings_for(database)) as url,
        posting(url, "PEPE") as load,
        watching(url, ["PEPE"]) as pairs,
        httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=50)) as client,
    ):
        load.begin(2)
        await load.more(10)
        signalled(power, signal.SIGSTOP)
        try:
            paused = time.monotonic()
            first = await asyncio.gather(*(timed(client, path) for path in READS * 6), timed(client, "/health/ready"))
            assert {answer.status_code for _, answer in first} == {503}
            await pairs["PEPE"].tells("stale")
            later: list[tuple[float, httpx.Response]] = []
            while time.monotonic() < paused + seconds:
                later += await asyncio.gather(*(timed(client, path) for path in READS * 5))
            last = [asyncio.create_task(timed(client, path)) for path in READS * 5]
            quick, probing = await asyncio.wait(last, timeout=QUICK)
            live, alive = await timed(client, "/health/live")
        finally:
            signalled(power, signal.SIGCONT)
        back = time.monotonic()
        rto = await load.back(back)
        later += [await one for one in quick]
        assert len(probing) <= 1
        await asyncio.gather(*probing)
        await pairs["PEPE"].tells("live")
        account = await assert_held(database.url, load, pairs)
        pairs["PEPE"].stayed()
        assert {answer.status_code for _, answer in later} == {503}
        waits = sorted(wait for wait, _ in later)
        assert max(wait for wait, _ in first) < PROMISED
        assert waits[-1] < PROMISED and waits[len(waits) // 2] < QUICK
        assert (alive.status_code, live < QUICK) == (200, True)
        assert load.ledger.answers.keys() <= {200, 503}
        first_s = max(wait for wait, _ in first)
        figures("F08", first_s=first_s, later_p50_s=waits[len(waits) // 2], rto_s=rto, **account.figures, gaps=0)


@pytest.mark.slow
async def test_a_service_can_leave_a_paused_database() -> None:
    async with powered() as (power, database):
        try:
            async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url) as client:
                await asyncio.gather(*(client.get(path) for path in READS * 3))
                await client.put("/api/v1/tokens/PEPE", json={})
                signalled(power, signal.SIGSTOP)
                begun = time.monotonic()
            assert time.monotonic() - begun < PROMISED
        finally:
            signalled(power, signal.SIGCONT)


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """While the context is open, whoever reads bars or stores trades waits; a connection that sees who does."""
    async with connected(url) as watch, connected(url) as connection, connection.transaction():
        await connection.execute(LOCK)
        yield watch


@pytest.fixture
async def small(plain: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A service with two reading connections, and a token with a trade."""
    settings = settings_for(plain, klines_pool_size=2)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        body = {"symbol": "PEPE", "trade_id": 1, "time": 1_700_000_000_000, "price": "1", "amount": "1", "side": "buy"}
        assert (await client.post("/api/v1/trades", json={"trades": [body]})).status_code == 200
        yield client


@pytest.mark.fault("F12")
async def test_a_pool_in_use_is_told_in_time_and_health_answers(
    plain: Database, small: httpx.AsyncClient, figures: Callable[..., None]
) -> None:
    async with locked(plain.url) as connection:
        # Of those who ask the same one would wait in the database, and the others in the service.
        asked = [f"{READS[0]}?limit={limit}" for limit in range(1, 13)]
        holding = [asyncio.create_task(timed(small, path)) for path in asked[:2]]
        await poll(lambda: connection.fetchval(f"SELECT ({ACTIVE}) = 2"))
        waiting = [asyncio.create_task(timed(small, path)) for path in asked[2:]]
        ready_s, ready = await timed(small, "/health/ready")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        refused = await asyncio.gather(*waiting)
        assert {answer.json()["code"] for _, answer in refused} == {"database_busy"}
        assert max(wait for wait, _ in refused) < 3
    assert {answer.status_code for _, answer in await asyncio.gather(*holding)} == {200}
    waits = sorted(wait for wait, _ in refused)
    figures("F12", refused_p50_s=waits[5], refused_max_s=waits[-1], ready_s=ready_s)


@pytest.mark.slow
async def test_a_lock_is_not_waited_for_for_ever(plain: Database, small: httpx.AsyncClient) -> None:
    trade = {"symbol": "PEPE", "trade_id": 2, "time": 1_700_000_000_000, "price": "1", "amount": "1", "side": "buy"}
    async with locked(plain.url):
        reading = asyncio.create_task(timed(small, READS[0]))
        stored = await small.post("/api/v1/trades", json={"trades": [trade]})
        took, read = await reading
    assert (stored.status_code, stored.json()["code"]) == (503, "database_busy")
    assert (read.status_code, read.json()["code"], took < PROMISED) == (503, "database_busy", True)


@pytest.mark.fault("F16")
async def test_a_reader_who_hangs_up_is_not_read_for(
    plain: Database, small: httpx.AsyncClient, figures: Callable[..., None]
) -> None:
    took = []
    async with locked(plain.url) as connection:
        for _ in range(10):
            reading = asyncio.create_task(small.get(READS[0]))
            await poll(lambda: connection.fetchval(f"SELECT ({ACTIVE}) = 1"))
            reading.cancel()
            begun = time.monotonic()
            await poll(lambda: connection.fetchval(f"SELECT ({ACTIVE}) = 0"), 3)
            took.append(time.monotonic() - begun)
    assert max(took) < 1
    answers = await asyncio.gather(*(small.get(path) for path in READS * 5))
    assert {answer.status_code for answer in answers} == {200}
    async with connected(plain.url) as connection:
        sessions = await connection.fetchval(SESSIONS)
    figures("F16", hung_up=len(took), cancelled_max_s=max(took), orphans=0, sessions=sessions)
