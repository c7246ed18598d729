"""A market for the real clients: one service in this process, on a database with the tape."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from tests.application import serving, settings_for
from tests.clients.market import SYMBOLS, Market, connect, tape
from tests.servers import Database


@pytest.fixture(autouse=True)
def installed(request: pytest.FixtureRequest) -> None:
    """The client that `clients(...)` names, before anything is made for a test that has to be skipped."""
    for marker in request.node.iter_markers("clients"):
        for environment in marker.args:
            environment.wanted()


@pytest.fixture
async def market(plain: Database) -> AsyncIterator[Market]:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        connection = await connect(plain)
        try:
            made = Market(url, client, connection)
            await made.post(trade for symbol in SYMBOLS for trade in tape(symbol))
            yield made
        finally:
            await connection.close()
