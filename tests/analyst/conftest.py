"""One filled market per profile, for all tests that only read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.analyst.market import Market, fill
from tests.conftest import PROFILES, allowed
from tests.servers import Server, run


@pytest.fixture(scope="package", params=PROFILES)
def market(request: pytest.FixtureRequest, server: Server) -> Iterator[Market]:
    with server.database(allowed(server, request.param)) as database:
        yield Market(database, run(lambda: fill(database)))
