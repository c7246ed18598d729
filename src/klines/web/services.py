"""What a route may use: opened once in the application's lifespan, handed to every route."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from litestar import Request
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from klines.database import reading
from klines.errors import UnknownToken
from klines.hub import Hub
from klines.migrations import Status
from klines.queries import tokens
from klines.relay.relay import Relay
from klines.settings import Settings
from klines.symbol import canonical_symbol
from klines.writer import TradeWriter

MAX_KNOWN_TOKENS = 100_000


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


class Services(NamedTuple):
    """Engine to read, writer to write, settings, the schema found at the start, known ids, streams, and the clock."""

    engine: AsyncEngine
    writer: TradeWriter
    settings: Settings
    schema: Status
    token_ids: dict[str, int]
    relay: Relay
    hub: Hub
    now: Callable[[], datetime] = utc_now

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
        symbol = canonical_symbol(text)
        if (token_id := self.token_ids.get(symbol)) is not None:
            return symbol, token_id
        async with reading(self.engine) as connection:
            return await self.token(connection, symbol)


Given = NamedDependency[Services]
Incoming = Request[Any, Any, Any]
