"""Whose login upgrades a database, and what the roles become: no roles at all, those of a managed server, few locks.

On a server where nobody has heard of the roles yet, and again after each test: this is the first module of the package.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from klines import migrations
from klines.database import open_engine, reading
from klines.embedded import EmbeddedServer
from klines.queries import roles
from klines.settings import Settings
from tests.application import serving
from tests.roles.logins import Cluster, connected, execute, refused, said
from tests.servers import Database, reachable_directory, run

ROLES = ("klines_service", "klines_analyst", "klines_writer", "klines_reader", "klines_migrator", "klines_owner")
LOGIN = "klines_test_login"
TRADE = {"symbol": "PEPE", "trade_id": 1, "price": "2", "amount": "3", "side": "buy", "time": 1_700_000_000_000}
DAYS = 500


@pytest.fixture
def owned(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Database]:
    """An empty database that belongs to a login with these options, on a server without the roles."""
    without(cluster, *ROLES)
    password = cluster.login(LOGIN, getattr(request, "param", ""))
    cluster.server.execute(f"CREATE DATABASE {LOGIN} OWNER {LOGIN}")
    yield Database(cluster.url(LOGIN, LOGIN, password), "plain")
    cluster.server.execute(f"DROP DATABASE {LOGIN} WITH (FORCE)")
    without(cluster, *ROLES, LOGIN)


def without(cluster: Cluster, *names: str) -> None:
    """Drop roles; an error where a database still uses one."""
    for name in names:
        cluster.server.execute(f"DROP ROLE IF EXISTS {name}")


def words(url: str) -> list[str]:
    """What `klines db status` says of the roles."""

    async def left() -> list[str]:
        async with open_engine(url) as engine, reading(engine) as connection:
            return await roles.left(connection)

    return run(left)


async def owners(url: str) -> list[str]:
    """Who owns what is ours alone."""
    inside = "relnamespace = 'klines_internal'::regnamespace"
    async with connected(url) as connection:
        rows = await connection.fetch(f"SELECT DISTINCT relowner::regrole::text FROM pg_class WHERE {inside}")
        return [row[0] for row in rows]


async def everybodys(url: str) -> list[str]:
    """What acts for its owner and may be called by every login."""
    acting = (
        "SELECT proname FROM pg_proc AS p, aclexplode(coalesce(proacl, acldefault('f', proowner))) AS a"
        " WHERE a.grantee = 0 AND prosecdef AND pronamespace = 'klines_internal'::regnamespace"
    )
    async with connected(url) as connection:
        return [row[0] for row in await connection.fetch(acting)]


async def stored(url: str) -> int:
    """What a service with this login has of one trade."""
    async with serving(Settings(database_url=url)) as address, httpx.AsyncClient(base_url=address) as client:
        answer = await client.post("/api/v1/trades", json={"trades": [TRADE]})
        assert answer.status_code == 200, answer.text
        bars = await client.get("/api/v1/klines/PEPE?interval=1d")
        return int(bars.json()["klines"][0]["trades"])


async def test_a_login_that_may_make_no_roles_works_until_an_administrator_comes(
    cluster: Cluster, owned: Database
) -> None:
    await migrations.upgrade(owned.url, "plain")
    assert [told.split(",")[0] for told in words(owned.url)] == ["everything is owned by and done as the login"]
    assert await roles.addresses(owned.url) == roles.Addresses(owned.url, owned.url)
    assert await everybodys(owned.url) == []
    assert await stored(owned.url) == 1
    administrator = cluster.administrator(LOGIN)
    assert "has to run `klines db upgrade` first" in await asyncio.to_thread(
        refused, "db", "service", DATABASE_URL=administrator
    )
    upgraded = await asyncio.to_thread(said, "db", "upgrade", DATABASE_URL=administrator)
    assert "least that it needs" in upgraded
    # The login that owned everything is a member of the roles now, and goes on.
    assert (await roles.addresses(owned.url)).writing == f"{owned.url}?role=klines_writer"
    assert await stored(owned.url) == 1
    assert "least that it needs" in await asyncio.to_thread(said, "db", "upgrade", DATABASE_URL=owned.url)


@pytest.mark.parametrize("owned", ["CREATEROLE"], indirect=True)
@pytest.mark.parametrize("profile", ["plain", pytest.param("timescale", marks=pytest.mark.slow)])
async def test_the_administrator_of_a_managed_server_upgrades_from_empty_to_newest(
    cluster: Cluster, owned: Database, profile: str, tmp_path: Path
) -> None:
    place = {"DATABASE_URL": owned.url, "KLINES_STORAGE_PROFILE": profile}
    upgraded = await asyncio.to_thread(said, "db", "upgrade", **place)
    # What is PostgreSQL's own is the superuser's to give and to take; so are chunks, in a schema of the extension's.
    left = [line for line in upgraded.splitlines() if line.startswith("roles:")]
    assert "every login may call" in left[-2]
    assert "GRANT pg_signal_backend, pg_read_all_stats TO klines_owner" in left[-1]
    owner = "klines_owner"
    if profile == "timescale":
        owner = LOGIN
        assert f"{LOGIN} goes on owning it: a superuser can change that" in left[0]
    assert await owners(owned.url) == [owner]
    assert (await roles.addresses(owned.url)).reading == f"{owned.url}?role=klines_reader"

    file = tmp_path / "password"
    for password in ("correct horse", "battery staple"):
        file.write_text(f"{password}\n")
        address = await asyncio.to_thread(said, "db", "service", "--password-file", str(file), **place)
        assert address == f"postgresql://{roles.SERVICE}@127.0.0.1:{cluster.port}/{LOGIN}\n"
        url = cluster.url(LOGIN, roles.SERVICE, password.replace(" ", "%20"))
        assert (await roles.addresses(url)).writing == f"{url}?role=klines_writer"
    assert await stored(url) == 1
    assert "privilege" not in await asyncio.to_thread(said, "db", "analyst", **place)

    superuser = {"DATABASE_URL": cluster.administrator(LOGIN)}
    assert "least that it needs" in await asyncio.to_thread(said, "db", "upgrade", **superuser)
    assert await owners(owned.url) == ["klines_owner"]
    assert await stored(url) == 1

    cluster.server.execute("GRANT klines_owner TO klines_service")
    told = await asyncio.to_thread(refused, "db", "service", **place)
    assert told.startswith("klines_service is a member of klines_owner"), told


@pytest.mark.slow
def test_a_server_without_room_for_the_locks_is_told_how_many() -> None:
    """Everything is handed over in one transaction: chunks, indexes and TOAST; until then all goes on as before."""
    few = {"max_connections": "20", "max_worker_processes": "4", "timescaledb.max_background_workers": "1"}
    with reachable_directory() as directory:
        with EmbeddedServer(directory) as embedded:
            place = {"DATABASE_URL": embedded.url, "KLINES_STORAGE_PROFILE": "timescale"}
            said("db", "upgrade", **place)
            days = f"generate_series(1, {DAYS}) AS day"
            execute(
                embedded.url,
                "INSERT INTO tokens (symbol) VALUES ('PEPE')",
                f"INSERT INTO trades SELECT 1, day, now() - day * INTERVAL '1 day', 2, 3, 'buy' FROM {days}",
                "ALTER TABLE trades OWNER TO klines",
            )
        with EmbeddedServer(directory, options=few | {"max_locks_per_transaction": "10"}):
            upgraded = said("db", "upgrade", **place)
            needed = re.search(r"max_locks_per_transaction = (\d+) \(now 10\), restart it", upgraded)
            assert needed, upgraded
            assert "tables belong to klines" in said("db", "status", **place)
            assert f"1d: {DAYS} bars compared, 0 differ" in said("verify", "PEPE", "--interval", "1d", **place)
        with EmbeddedServer(directory, options=few | {"max_locks_per_transaction": needed[1]}):
            assert "least that it needs" in said("db", "upgrade", **place)
            assert words(embedded.url) == []
