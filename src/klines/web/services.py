"""What a route may use: opened once in the application's lifespan, handed to every route."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, NamedTuple

from litestar import Request
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from klines.breaker import Breaker
from klines.database import reading
from klines.dear import Dear
from klines.errors import UnknownToken
from klines.hub import Hub
from klines.metrics.ingest import MeasuredWriter
from klines.migrations import Status
from klines.queries import tokens
from klines.relay.relay import Relay
from klines.settings import Settings
from klines.symbol import canonical_symbol
from klines.web.admission.intake import Intake
from klines.web.answers import Answers
from klines.web.joint import JointAnswers
from klines.web.probe import Probe
from klines.web.versions import Versions

MAX_KNOWN_TOKENS = 100_000


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


class Services(NamedTuple):
    """What reads, what writes, what was found at the start, the streams, what holds back, what watches, the clock.

    `joint` is for what many ask at once, `answers` for pages that were answered before, whose `versions` tell whether
    they still stand.
    """

    engine: AsyncEngine
    writer: MeasuredWriter
    settings: Settings
    schema: Status
    token_ids: dict[str, int]
    relay: Relay
    hub: Hub
    dear: Dear
    intake: Intake
    breaker: Breaker
    probe: Probe
    joint: JointAnswers
    answers: Answers
    versions: Versions
    now: Callable[[], datetime] = utc_now

    @asynccontextmanager
    async def reading(self, *, dear: bool) -> AsyncIterator[AsyncConnection]:
        """As `klines.database.reading`; a dear read waits for a place first, and holds no connection meanwhile."""
        async with self.dear.place() if dear else nullcontext(), reading(self.engine) as connection:
            yield connection

    async def token(self, connection: AsyncConnection, text: str) -> tuple[str, int]:
        """Canonical symbol and id of the token that a path names; raises `InvalidSymbol` or `UnknownToken`."""
        symbol = canonical_symbol(text)
        token_id = self.token_ids.get(symbol)
        if token_id is None:
            token_id = await tokens.token_id(connection, symbol)
            if token_id is None:
                raise UnknownToken(f"no token is called {symbol}", code="symbol_unknown")
            # Tokens are never removed, so an id once seen stays true.
            if len(self.token_ids) < MAX_KNOWN_TOKENS:
                self.token_ids[symbol] = token_id
        return symbol, token_id

    async def find(self, text: str) -> tuple[str, int]:
        """The same where no connection is at hand; one is taken only for a token not seen before."""
        # What is known is canonical, so most clients' spelling needs no second look.
        symbol = text if text in self.token_ids else canonical_symbol(text)
        if (token_id := self.token_ids.get(symbol)) is not None:
            return symbol, token_id
        async with reading(self.engine) as connection:
            return await self.token(connection, symbol)


Given = NamedDependency[Services]
Incoming = Request[Any, Any, Any]
