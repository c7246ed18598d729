"""The whole service with a login that is a member of `klines_writer` and nothing else, in both profiles."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from websockets.asyncio.client import connect

from klines import retention
from klines.queries import roles
from klines.settings import Settings
from tests.application import serving
from tests.conftest import PROFILES, allowed
from tests.roles.logins import Cluster, connected, execute, open_cluster
from tests.servers import Database
from tests.service.processes import klines

LOGIN = "klines_test_service"
NOW = int(time.time() * 1000)
OLD = 1_500_000_000_000
ITEM = {"symbol": "PEPE", "price": "2", "amount": "3", "side": "buy"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with open_cluster() as opened:
        yield opened


@pytest.fixture(scope="module", params=PROFILES)
def member(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Database]:
    """The database as the service's login sees it, with its rights in place."""
    with cluster.server.database(allowed(cluster.server, request.param)) as made:
        execute(made.url, "SELECT klines_internal.grant_roles_v1()")
        password = cluster.login(LOGIN, f"IN ROLE {roles.WRITER}")
        yield cluster.member(made, LOGIN, password)
    cluster.server.execute(f"DROP ROLE {LOGIN}")


def settings(member: Database, **changes: object) -> Settings:
    """Settings of a service that logs in as the member."""
    return msgspec.structs.replace(Settings(database_url=member.url), **changes)


async def test_it_works_in_the_role_for_the_work(member: Database) -> None:
    found = await roles.addresses(member.url)
    for address, role in ((found.reading, roles.READER), (found.writing, roles.WRITER)):
        async with connected(address) as connection:
            assert await connection.fetchrow("SELECT current_user, session_user") == (role, LOGIN)
    async with connected(member.url) as connection:
        may = (
            "SELECT rolsuper OR rolcreaterole OR pg_has_role('klines_owner', 'MEMBER') FROM pg_roles WHERE rolname = $1"
        )
        assert await connection.fetchval(may, LOGIN) is False


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
    monkeypatch.setattr(retention, "PERIOD_SECONDS", 0.1)
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
    imported = klines("import", str(file), "--json", DATABASE_URL=member.url)
    assert imported.returncode == 0, imported.stderr
    assert json.loads(imported.stdout)["inserted"] == 2
    # What follows is the same in both profiles, and takes a process each.
    if member.profile == "timescale":
        return
    verified = klines("verify", "WIF", "--interval", "1m", DATABASE_URL=member.url)
    assert verified.stdout == "1m: 1 bars compared, 0 differ\n", verified.stderr
    status = klines("db", "status", DATABASE_URL=member.url)
    assert (status.returncode, "least that it needs" in status.stdout) == (0, True), status.stdout + status.stderr
    made = klines("keys", "create", "ci", "--scopes", "write", DATABASE_URL=member.url)
    assert made.returncode == 0, made.stderr
    listed = klines("keys", "list", DATABASE_URL=member.url)
    assert "ci" in listed.stdout, listed.stderr


def test_it_lets_nobody_in(member: Database) -> None:
    with_less = klines("db", "analyst", DATABASE_URL=member.url)
    assert with_less.returncode != 0
    assert "only an administrator can" in with_less.stderr
