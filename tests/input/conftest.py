"""One service per table, and a witness: nothing of ours went wrong, and only what was accepted is stored."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import asyncpg
import pytest

from tests.application import serving, settings_for
from tests.input.wire import Case, Place
from tests.servers import Database

Identity = tuple[str, int, int]


@dataclass
class Site:
    """A service on a database of its own; `trades` and `tokens` are what it must hold at the end."""

    place: Place
    url: str
    database: Database
    trades: set[Identity] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)

    async def hold(self, cases: Sequence[Case]) -> None:
        """Send every case and fail with all that were answered wrongly."""
        faults = [case.fault(await self.place.send(case.request)) for case in cases]
        wrong = [fault for fault in faults if fault]
        assert not wrong, "\n".join(wrong)

    async def stored(self) -> tuple[set[Identity], set[str]]:
        """The identities of all stored trades, and all symbols."""
        connection = await asyncpg.connect(self.database.url)
        try:
            trades = await connection.fetch(
                "SELECT symbol, trade_id, (extract(epoch FROM time) * 1000000)::bigint"
                " FROM trades JOIN tokens USING (token_id)"
            )
            tokens = await connection.fetch("SELECT symbol FROM tokens")
        finally:
            await connection.close()
        return {(row[0], row[1], row[2]) for row in trades}, {row[0] for row in tokens}


@pytest.fixture
async def site(plain: Database, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
    """A service, and at its end the witness."""
    caplog.set_level(logging.INFO)
    async with serving(settings_for(plain)) as url:
        opened = Site(place_of(url), url, plain)
        yield opened
        trades, tokens = await opened.stored()
        assert trades == opened.trades, "what was refused must not be stored"
        assert tokens == opened.tokens
    told = [record for record in caplog.records if record.exc_info or record.levelno >= logging.ERROR]
    assert [record.getMessage() for record in told] == [], "bad input is nobody's error but the client's"


def place_of(url: str) -> Place:
    """Where the service of this URL listens."""
    address = urlsplit(url)
    return Place(address.hostname or "", address.port or 0)
