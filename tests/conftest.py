"""Fixtures for all tests: the server, a database per test and profile, and a service on it."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

from klines.settings import OUR_PREFIXES, variables
from tests.application import serving, settings_for
from tests.servers import Database, Server, open_server

pytest_plugins = ["tests.figures"]
PROFILES = ("plain", "timescale")


def pytest_configure() -> None:
    """The developer's own settings must not leak into the tests."""
    for name in [*variables(), *(name for name in os.environ if name.startswith(OUR_PREFIXES))]:
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with open_server() as opened:
        yield opened


@pytest.fixture(params=PROFILES)
def profile(request: pytest.FixtureRequest, server: Server) -> str:
    wanted: str = request.param
    return allowed(server, wanted)


@pytest.fixture
def database(profile: str, server: Server) -> Iterator[Database]:
    """A migrated, empty database, once in every storage profile that the server allows."""
    with server.database(profile) as made:
        yield made


@pytest.fixture
def timescale(server: Server) -> Iterator[Database]:
    """A migrated, empty database in the Timescale profile, for what only that has."""
    with server.database(allowed(server, "timescale")) as made:
        yield made


@pytest.fixture
def plain(server: Server) -> Iterator[Database]:
    """A migrated, empty database in the plain profile, for what does not depend on the profile."""
    with server.database(allowed(server, "plain")) as made:
        yield made


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service on the test's database, in each profile."""
    async with serving(settings_for(database)) as url, httpx.AsyncClient(base_url=url) as opened:
        yield opened


@pytest.fixture
async def plain_client(plain: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a service in the plain profile, for what does not depend on the profile."""
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as opened:
        yield opened


def allowed(server: Server, profile: str) -> str:
    if server.template(profile) is None:
        pytest.skip(f"{profile} profile: {server.refusals[profile]} ({server.kind})")
    return profile
