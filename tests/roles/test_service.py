"""The whole service with the login that `klines db service` makes, in both profiles."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect

from klines import retention
from klines.queries import roles
from klines.settings import Settings
from tests.application import serving
from tests.roles.logins import connected, refused, said
from tests.servers import Database

NOW = int(time.time() * 1000)
OLD = 1_500_000_000_000
ITEM = {"symbol": "PEPE", "price": "2", "amount": "3", "side": "buy"}


def settings(member: Database, **changes: object) -> Settings:
    """Settings of a service that logs in as the member."""
    return msgspec.structs.replace(Settings(database_url=member.url), **changes)


async def test_it_works_in_the_role_for_the_work(member: Database) -> None:
    found = await roles.addresses(member.url)
    for address, role in ((found.reading, roles.READER), (found.writing, roles.WRITER)):
        async with connected(address) as connection:
            assert await connection.fetchrow("SELECT current_user, session_user") == (role, roles.SERVICE)
    async with connected(member.url) as connection:
        may = (
            "SELECT rolsuper OR rolcreaterole OR pg_has_role('klines_owner', 'MEMBER') FROM pg_roles WHERE rolname = $1"
        )
        assert await connection.fetchval(may, roles.SERVICE) is False


async def test_trades_come_in_and_go_out_by_rest_and_by_stream(member: Database) -> None:
    async with serving(settings(member)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health/ready")).json()["problems"] == []
        first = await client.post("/api/v1/trades", json={"trades": [ITEM | {"trade_id": 1, "time": NOW}]})
        assert first.json()["inserted"] == 1, first.text
        assert (await client.put("/api/v1/tokens/PEPE", json={"name": "Pepe"})).status_code == 200
        assert (await client.get("/api/v1/tokens/PEPE")).json()["name"] == "Pepe"
        async with connect(f"ws{url.removeprefix('http')}/ws/transactions/PEPE") as stream, asyncio.timeout(20):
            dearer = ITEM | {"trade_id": 2, "time": NOW, "price": "7.5"}
            await client.post("/api/v1/trades", json={"trades": [dearer]})
            while '"7.5"' not in str(await stream.recv()):
                pass
        bars = (await client.get("/api/v1/klines/PEPE?interval=1h")).json()["klines"]
        assert sum(bar["trades"] for bar in bars) == 2


async def test_the_mock_feed_writes(member: Database) -> None:
    asked = settings(member, mock_data_interval=50, mock_history_minutes=1)
    async with serving(asked) as url, httpx.AsyncClient(base_url=url) as client, asyncio.timeout(30):
        while True:
            tokens = (await client.get("/api/v1/tokens?search=-SOL")).json()["tokens"]
            if any(token["trades_24h"] for token in tokens):
                break


async def test_old_trades_are_forgotten(member: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "AGAIN_SECONDS", 0.1)
    async with serving(settings(member)) as url, httpx.AsyncClient(base_url=url) as client:
        stored = await client.post("/api/v1/trades", json={"trades": [ITEM | {"trade_id": 9, "time": OLD}]})
        assert stored.json()["inserted"] == 1, stored.text
    asked = settings(member, klines_trade_retention_days=365)
    async with serving(asked), connected(member.url) as connection, asyncio.timeout(30):
        while await connection.fetchval("SELECT count(*) FROM trades WHERE time < now() - INTERVAL '400 days'"):
            await connection.execute("SELECT pg_sleep(0.01)")


def test_the_commands_work(member: Database, tmp_path: Path) -> None:
    file = tmp_path / "trades.csv"
    file.write_text(f"symbol,trade_id,time,price,amount,side\nWIF,1,{NOW},1,2,buy\nWIF,2,{NOW},1,2,sell\n")
    imported = said("import", str(file), "--json", DATABASE_URL=member.url)
    assert json.loads(imported)["inserted"] == 2
    verified = said("verify", "WIF", "--interval", "1m", DATABASE_URL=member.url)
    assert verified == "1m: 1 bars compared, 0 differ\n"
    assert "least that it needs" in said("db", "status", DATABASE_URL=member.url)


def test_it_makes_and_ends_no_keys(prepared: Database, member: Database) -> None:
    said("keys", "create", "ci", "--scopes", "write", DATABASE_URL=prepared.url)
    listed = said("keys", "list", DATABASE_URL=member.url).splitlines()[-1]
    assert listed.split()[-2:] == ["good", "ci"]
    key_id = listed.split()[0]
    for words in (["create", "mine", "--scopes", "admin"], ["revoke", key_id], ["rotate", key_id]):
        told = refused("keys", *words, DATABASE_URL=member.url)
        assert "this login may not make or end keys" in told
    assert said("keys", "list", DATABASE_URL=member.url).splitlines()[1:] == [listed]


@pytest.mark.parametrize("who", ["analyst", "service"])
def test_it_lets_nobody_in(member: Database, who: str) -> None:
    assert "only an administrator can" in refused("db", who, DATABASE_URL=member.url)


async def test_a_login_that_may_more_is_told(
    prepared: Database, member: Database, caplog: pytest.LogCaptureFixture
) -> None:
    for database, told in ((member, False), (prepared, True)):
        caplog.clear()
        async with serving(settings(database)):
            assert ("is a superuser" in caplog.text) is told
        status = await asyncio.to_thread(said, "db", "status", DATABASE_URL=database.url)
        assert ("is a superuser: let services log in as klines_service" in status) is told
