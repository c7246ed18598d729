"""KLINES_TRADE_RETENTION_DAYS: the running service forgets old trades and keeps their bars."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import asyncpg
import httpx
import pytest

from klines import retention
from klines.writer import forget_trades
from tests.application import serving, settings_for
from tests.faults.oracles import connected
from tests.live.followers import poll
from tests.servers import Database

OLD, RECENT = 1_500_000_000_000, int(time.time() * 1000) - 86_400_000


async def test_old_trades_go_and_their_bars_stay(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    # The first round moves the windows of the refresh policies, the next one drops.
    monkeypatch.setattr(retention, "AGAIN_SECONDS", 0.1)
    item = {"symbol": "PEPE", "price": "1", "amount": "1", "side": "buy"}
    async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url) as client:
        trades = [item | {"trade_id": 1, "time": OLD}, item | {"trade_id": 2, "time": RECENT}]
        await client.post("/api/v1/trades", json={"trades": trades})
    days = settings_for(database, klines_trade_retention_days=365)
    async with serving(days) as url, httpx.AsyncClient(base_url=url) as client:
        await _floor_is_set(database.url)
        bars = (await client.get("/api/v1/klines/PEPE?interval=1d")).json()["klines"]
        assert [bar["trades"] for bar in bars] == [1, 1]
        late = await client.post("/api/v1/trades", json={"trades": [item | {"trade_id": 3, "time": OLD}]})
        assert (late.status_code, late.json()["code"]) == (422, "trades_not_forgotten")
        stored = (await client.get("/api/v1/trades/PEPE")).json()["trades"]
        assert [row["trade_id"] for row in stored] == [2]


REFRESHING = """
    SELECT application_name FROM timescaledb_information.jobs WHERE proc_name = 'policy_refresh_continuous_aggregate'
"""


async def test_trades_that_a_refresh_keeps_are_not_said_to_be_forgotten(timescale: Database) -> None:
    before = datetime.now(UTC) - timedelta(days=365)
    async with serving(settings_for(timescale)) as url, httpx.AsyncClient(base_url=url) as client:
        trade = {"symbol": "PEPE", "trade_id": 1, "time": OLD, "price": "1", "amount": "1", "side": "buy"}
        await client.post("/api/v1/trades", json={"trades": [trade]})
    async with connected(timescale.url) as sweeper, connected(timescale.url) as job:
        # The first round moves the window of the refresh policy.
        assert not await forget_trades(sweeper, before)
        # A session under a job's name that is at work is all that the server knows of a job that runs.
        await job.execute("SELECT set_config('application_name', $1, false)", await job.fetchval(REFRESHING))
        await sweeper.execute("SELECT pg_advisory_lock(1)")
        at_work = asyncio.create_task(job.execute("SELECT pg_advisory_lock(1)"))
        await poll(
            partial(
                sweeper.fetchval, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
            )
        )
        assert not await forget_trades(sweeper, before)
        assert await sweeper.fetchval("SELECT count(*) FROM trades") == 1
        await sweeper.execute("SELECT pg_advisory_unlock(1)")
        await at_work
        assert await forget_trades(sweeper, before)
        assert await sweeper.fetchval("SELECT count(*) FROM trades") == 0


async def _floor_is_set(url: str) -> None:
    connection = await asyncpg.connect(url)
    async with asyncio.timeout(30):
        # The last thing that forgetting does is to drop the trades: wait for their lock, then look.
        while await connection.fetchval("SELECT count(*) FROM trades") > 1:
            await connection.execute("SELECT pg_sleep(0.01)")
    await connection.close()
