"""One server for the package, on which logins are real, and one database per profile for what leaves little behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import PROFILES, allowed
from tests.roles.logins import Cluster, connected, open_cluster, said
from tests.servers import Database, run


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    # The queue of notifications is as short as the server allows: 64 pages.
    with open_cluster(max_notify_queue_pages="64") as opened:
        yield opened


async def prepare(database: Database) -> None:
    """One token, one trade; and the database's own rights, which a copy of a template does not have."""
    async with connected(database.url) as connection:
        await connection.execute("INSERT INTO tokens (symbol) VALUES ('WOJAK')")
        await connection.execute("INSERT INTO trades SELECT token_id, 1, now(), 2, 3, 'buy' FROM tokens")
        assert await connection.fetchval("SELECT klines_internal.grant_roles_v1()") == []


@pytest.fixture(scope="package", params=PROFILES)
def prepared(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Database]:
    with cluster.server.database(allowed(cluster.server, request.param)) as database:
        run(lambda: prepare(database))
        yield database


@pytest.fixture(scope="package")
def member(prepared: Database, cluster: Cluster) -> Database:
    """The same database as the service sees it, whose login is the one that the command makes."""
    address = said("db", "service", DATABASE_URL=cluster.administrator(prepared.name)).strip()
    return Database(address, prepared.profile)
