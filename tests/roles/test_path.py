"""A login or a database may have any search path: what the service means does not depend on it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx

from klines import migrations
from klines.settings import Settings
from tests.application import serving
from tests.roles.logins import Cluster, execute, said

TRADE = {"symbol": "PEPE", "trade_id": 1, "price": "2", "amount": "3", "side": "buy", "time": 1_700_000_000_000}


async def test_it_upgrades_starts_and_stores_with_a_path_that_leads_elsewhere(cluster: Cluster, tmp_path: Path) -> None:
    cluster.server.execute("CREATE DATABASE elsewhere")
    url = cluster.server.database_url("elsewhere")
    try:
        cluster.server.execute("ALTER DATABASE elsewhere SET search_path = mine, pg_catalog")
        execute(url, "CREATE SCHEMA mine CREATE TABLE trades (nothing integer) CREATE TABLE tokens (nothing integer)")
        await migrations.upgrade(url, "plain")
        async with serving(Settings(database_url=url)) as address, httpx.AsyncClient(base_url=address) as client:
            stored = await client.post("/api/v1/trades", json={"trades": [TRADE]})
            assert stored.json()["inserted"] == 1, stored.text
            assert (await client.get("/health/ready")).json()["problems"] == []
            bars = (await client.get("/api/v1/klines/PEPE?interval=1d")).json()["klines"]
            assert [bar["trades"] for bar in bars] == [1]
        file = tmp_path / "trades.csv"
        file.write_text(f"symbol,trade_id,time,price,amount,side\nPEPE,2,{TRADE['time']},1,2,buy\n")
        await asyncio.to_thread(said, "import", str(file), DATABASE_URL=url)
        verified = await asyncio.to_thread(said, "verify", "PEPE", "--interval", "1m", DATABASE_URL=url)
        assert verified == "1m: 1 bars compared, 0 differ\n"
        cluster.server.template("plain")
        with cluster.server.database("plain") as target:
            copied = await asyncio.to_thread(said, "db", "copy", "--to", target.url, DATABASE_URL=url)
        assert "7 bars compared, 0 differ" in copied
    finally:
        cluster.server.execute("DROP DATABASE elsewhere WITH (FORCE)")
