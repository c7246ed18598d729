"""One database per profile for all tests that only try what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import PROFILES, allowed
from tests.roles.logins import connected
from tests.servers import Database, Server, run


async def prepare(database: Database) -> None:
    """One token, one trade; and the database's own rights, which a copy of a template does not have."""
    async with connected(database.url) as connection:
        await connection.execute("INSERT INTO tokens (symbol) VALUES ('PEPE')")
        await connection.execute("INSERT INTO trades SELECT token_id, 1, now(), 2, 3, 'buy' FROM tokens")
        assert await connection.fetchval("SELECT klines_internal.grant_roles_v1()") == []


@pytest.fixture(scope="package", params=PROFILES)
def prepared(request: pytest.FixtureRequest, server: Server) -> Iterator[Database]:
    with server.database(allowed(server, request.param)) as database:
        run(lambda: prepare(database))
        yield database
