"""F54: PgBouncer in transaction mode stands before PostgreSQL. The start says that this cannot work, and why."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
import pytest

from klines.embedded.account import server_account
from tests.faults.test_service_killed import free_port
from tests.live.followers import poll
from tests.live.proxy import upstream_of
from tests.servers import Database, reachable_directory
from tests.service.processes import klines

# Debian keeps it where only root looks.
PGBOUNCER = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
SETTINGS = """\
[databases]
{name} = host={host} port={port} user=klines
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listens}
unix_socket_dir =
auth_type = any
pool_mode = transaction
ignore_startup_parameters = {ignored}
"""
# What an administrator adds who takes PgBouncer at its word, one refused start after the other.
IGNORED = """
    search_path jit statement_timeout lock_timeout idle_in_transaction_session_timeout default_transaction_isolation
    plan_cache_mode enable_seqscan enable_hashjoin enable_mergejoin
"""

pytestmark = [pytest.mark.fault("F54"), pytest.mark.skipif(not PGBOUNCER, reason="needs pgbouncer")]


@contextmanager
def pooled(database: Database, ignored: str) -> Iterator[str]:
    """The URL of the database through a pooler of the test's own."""
    place = upstream_of(database.url)
    if not isinstance(place, str):
        pytest.skip("a server that asks for a password")
    host, _, port = place.rpartition("/.s.PGSQL.")
    listens, account = free_port(), server_account()
    with reachable_directory() as directory:
        directory.mkdir()
        file = directory / "pgbouncer.ini"
        file.write_text(SETTINGS.format(name=database.name, host=host, port=port, listens=listens, ignored=ignored))
        # It refuses root, as PostgreSQL does; and that account is the one that PostgreSQL lets in.
        become = {"user": account.uid, "group": account.gid, "extra_groups": []} if account.switched else {}
        with subprocess.Popen([str(PGBOUNCER), str(file)], stderr=subprocess.DEVNULL, **become) as process:  # type: ignore[call-overload]
            try:
                yield f"postgresql://klines@127.0.0.1:{listens}/{database.name}"
            finally:
                process.kill()


async def accepts(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, statement_cache_size=0)
    except OSError:
        return False
    await connection.close()
    return True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ignored", "said"), [("", "unsupported startup parameter"), (",".join(IGNORED.split()), "prepared statement")]
)
async def test_a_pooler_in_transaction_mode_is_refused_with_the_reason(
    plain: Database, ignored: str, said: str
) -> None:
    with pooled(plain, ignored) as url:
        await poll(lambda: accepts(url))
        # Who comes first may get through, and leaves statements in a session that the next one gets.
        klines("db", "status", DATABASE_URL=url)
        ended = klines("serve", DATABASE_URL=url, PORT="0")
    assert (ended.returncode, ended.stderr.count("\n")) == (3, 1), ended
    assert said in ended.stderr
    assert "LISTEN" in ended.stderr and "DATABASE_URL must lead to PostgreSQL itself" in ended.stderr
