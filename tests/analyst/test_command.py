"""`klines db analyst`, and what upgrade and status say of the role: on a server of its own, with a port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from klines import migrations
from klines.cli.login import address_of
from klines.embedded import EmbeddedServer
from klines.queries.analyst import ROLE
from tests.servers import Server, reachable_directory, run
from tests.service.processes import klines

PASSWORD = "correct horse battery staple"
GRANT = "SELECT klines_internal.grant_analyst_v1()"
READ = f"analysts: {ROLE} reads"


@pytest.fixture(scope="module")
def data_dir() -> Iterator[Path]:
    with reachable_directory() as directory:
        yield directory


@pytest.fixture
def cluster(data_dir: Path) -> Iterator[EmbeddedServer]:
    """A running server with a port, on which nobody has ever heard of the role."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with EmbeddedServer(data_dir, port) as server:
        yield server
        made = Server(server.url, "embedded")
        for (name,) in run(lambda: fetch(server.url, "SELECT datname FROM pg_database WHERE datname <> 'template0'")):
            run(lambda name=name: forget(made.database_url(name)))  # type: ignore[misc]
        made.execute(f"DROP ROLE IF EXISTS {ROLE}")


async def fetch(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


async def forget(url: str) -> None:
    connection = await asyncpg.connect(url)
    if await connection.fetchval("SELECT to_regrole($1)", ROLE):
        await connection.execute(f"DROP OWNED BY {ROLE}")
    await connection.close()


def test_the_role_is_let_in_and_reads(cluster: EmbeddedServer, data_dir: Path) -> None:
    place = {"KLINES_DATA_DIR": str(data_dir)}
    upgraded = klines("db", "upgrade", **place)
    assert upgraded.stdout.splitlines()[-1] == f"{READ}; `klines db analyst` lets it log in", upgraded.stderr
    let_in = klines("db", "analyst", **place)
    assert let_in.returncode == 0, let_in.stderr
    address = let_in.stdout.strip()
    assert address.startswith(f"postgresql://{ROLE}:")
    rows = run(
        lambda: fetch(address, "SELECT current_user, count(*), current_setting('statement_timeout') FROM trades")
    )
    assert [tuple(row) for row in rows] == [(ROLE, 0, "1min")]
    for statement in ("CREATE TEMPORARY TABLE mine (id integer)", "DELETE FROM trades"):
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            run(lambda statement=statement: fetch(address, statement))  # type: ignore[misc]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        run(lambda: fetch(address, "SELECT * FROM klines_internal.feeds"))
    assert klines("db", "status", **place).stdout.splitlines()[-1] == f"{READ} and may log in"


def test_a_password_from_a_file_is_not_shown(cluster: EmbeddedServer, data_dir: Path, tmp_path: Path) -> None:
    place = {"KLINES_DATA_DIR": str(data_dir)}
    klines("db", "upgrade", **place)
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    let_in = klines("db", "analyst", "--password-file", str(file), **place)
    assert let_in.returncode == 0, let_in.stderr
    assert PASSWORD not in let_in.stdout + let_in.stderr
    url = let_in.stdout.strip()
    assert url == f"postgresql://{ROLE}@{cluster.tcp_url.rpartition('@')[2]}" if cluster.tcp_url else False
    wrong = url.replace("@", ":wrong password@")
    with pytest.raises(asyncpg.InvalidPasswordError):
        run(lambda: fetch(wrong, "SELECT 1"))
    assert run(lambda: fetch(url.replace("@", f":{PASSWORD}@"), "SELECT count(*) FROM klines_1d"))
    for text, rule in (("short", "12 to 1024"), ("über-passwörter", "ASCII"), ("two lines\nof password", "one line")):
        file.write_text(text)
        refused = klines("db", "analyst", "--password-file", str(file), **place)
        assert (refused.returncode, rule in refused.stderr) == (2, True), refused.stderr
    assert klines("db", "analyst", "--password-file", str(tmp_path / "none"), **place).returncode == 2


def test_a_role_that_may_more_gets_no_password(cluster: EmbeddedServer, data_dir: Path) -> None:
    place = {"KLINES_DATA_DIR": str(data_dir)}
    klines("db", "upgrade", **place)
    for grant, take, said in (
        (f"ALTER ROLE {ROLE} CREATEDB", f"ALTER ROLE {ROLE} NOCREATEDB", "may create databases"),
        (f"GRANT pg_write_all_data TO {ROLE}", f"REVOKE pg_write_all_data FROM {ROLE}", "is a member of other roles"),
        (f"GRANT INSERT ON trades TO {ROLE}", f"REVOKE INSERT ON trades FROM {ROLE}", "may write"),
    ):
        Server(cluster.url, "embedded").execute(grant)
        refused = klines("db", "analyst", **place)
        assert (refused.returncode, said in refused.stderr) == (1, True), refused.stderr
        assert said in klines("db", "status", **place).stdout
        Server(cluster.url, "embedded").execute(take)


def test_an_owner_who_may_not_create_roles_is_told_what_to_do(cluster: EmbeddedServer) -> None:
    admin = Server(cluster.url, "embedded")
    admin.execute(f"CREATE ROLE humble LOGIN PASSWORD '{PASSWORD}'")
    admin.execute("CREATE DATABASE humble OWNER humble")
    place = (cluster.tcp_url or "").rpartition("@")[2].replace("/klines", "/humble")
    own = {
        "DATABASE_URL": f"postgresql://humble:{PASSWORD.replace(' ', '%20')}@{place}",
        "KLINES_STORAGE_PROFILE": "plain",
    }
    upgraded = klines("db", "upgrade", **own)
    assert upgraded.returncode == 0, upgraded.stderr
    assert f"an administrator has to CREATE ROLE {ROLE}" in upgraded.stdout
    assert f"CREATE ROLE {ROLE}" in klines("db", "status", **own).stdout
    refused = klines("db", "analyst", **own)
    assert (refused.returncode, f"CREATE ROLE {ROLE}" in refused.stderr) == (1, True)
    admin.execute(f"CREATE ROLE {ROLE}")
    assert READ in klines("db", "upgrade", **own).stdout
    refused = klines("db", "analyst", **own)
    assert (refused.returncode, f"ALTER ROLE {ROLE} LOGIN PASSWORD" in refused.stderr) == (1, True)
    admin.execute("DROP DATABASE humble")
    admin.execute("DROP ROLE humble")


async def test_databases_that_are_migrated_at_once_share_the_role(cluster: EmbeddedServer) -> None:
    admin = Server(cluster.url, "embedded")
    names = ("at_once_1", "at_once_2")
    for name in names:
        admin.execute(f"CREATE DATABASE {name}")
        await migrations.upgrade(admin.database_url(name), "plain")
        await forget(admin.database_url(name))
    admin.execute(f"DROP ROLE {ROLE}")
    first, second, watch = [await asyncpg.connect(admin.database_url(name)) for name in (*names, names[0])]
    async with first.transaction():
        assert await first.fetchval(GRANT) is None
        # The second one finds no role, tries to create it, and waits for the first to end.
        waiting = asyncio.create_task(second.fetchval(GRANT))
        blocked = (
            f"SELECT count(*) FROM pg_stat_activity WHERE {second.get_server_pid()} = pid AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(30):
            while not await watch.fetchval(blocked):
                assert not waiting.done()
    assert await waiting is None
    for connection in (first, second, watch):
        assert await connection.fetchval(f"SELECT has_table_privilege('{ROLE}', 'klines_1m', 'SELECT')")
        await connection.close()
    for name in names:
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_a_server_that_does_not_let_it_in_is_told_at_once(cluster: EmbeddedServer, data_dir: Path) -> None:
    klines("db", "upgrade", KLINES_DATA_DIR=str(data_dir))
    # The socket of the embedded server is for the service's account alone.
    refused = klines("db", "analyst", DATABASE_URL=cluster.url)
    assert (refused.returncode, "does not let it in" in refused.stderr) == (1, True), refused.stderr
    assert refused.stdout == ""


def test_a_server_without_a_port_lets_nobody_in(data_dir: Path) -> None:
    with EmbeddedServer(data_dir):
        klines("db", "upgrade", KLINES_DATA_DIR=str(data_dir))
        refused = klines("db", "analyst", KLINES_DATA_DIR=str(data_dir))
    assert (refused.returncode, "KLINES_POSTGRES_PORT" in refused.stderr) == (3, True), refused.stderr
    stopped = klines("db", "analyst", KLINES_DATA_DIR=str(data_dir))
    assert (stopped.returncode, "no embedded server runs" in stopped.stderr) == (2, True)


@pytest.mark.parametrize(
    ("owner", "analyst"),
    [
        ("postgresql://klines:secret@database/klines", "database/klines"),
        ("postgres://database:5433/klines", "database:5433/klines"),
        ("postgresql://o:p@a:1,b:2/k?target_session_attrs=any", "a:1,b:2/k?target_session_attrs=any"),
        ("postgresql:///k?host=%2Frun%2Fpg&user=o&password=p&port=5", "/k?host=%2Frun%2Fpg&port=5"),
        ("postgresql://o:a%40b@[::1]/k?sslmode=verify-full&sslcert=mine", "[::1]/k?sslmode=verify-full"),
    ],
)
def test_the_address_is_the_owners_without_the_owner(owner: str, analyst: str) -> None:
    assert address_of(ROLE, owner) == f"postgresql://{ROLE}@{analyst}"
