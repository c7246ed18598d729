"""What a route may use: opened once in the application's lifespan, handed to every route."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, NamedTuple

from litestar import Request
from litestar.di import NamedDependency
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from klines.database import reading
from klines.errors import Unavailable, UnknownToken
from klines.hub import Hub
from klines.interval import Width
from klines.migrations import Status
from klines.queries import tokens
from klines.relay.relay import Relay
from klines.settings import Settings
from klines.symbol import canonical_symbol
from klines.writer import TradeWriter

MAX_KNOWN_TOKENS = 100_000
# Stored bars a page may be made of before it is a dear one: the dearest are made of 300,000, in 300 to 500 ms.
DEAR_PARTS = 20_000
# Dear reads at once in a process, fewer than a pool has connections by default; and how long one more waits.
DEAR_READS = 2
DEAR_SECONDS = 5.0


def utc_now() -> datetime:
    """The present moment."""
    return datetime.now(UTC)


def is_dear(limit: int, width: Width) -> bool:
    """Whether so many bars of this width are a dear read."""
    return limit * width.parts > DEAR_PARTS


class Dear:
    """The places for dear reads, so that those of one client leave connections for everybody's light ones."""

    def __init__(self) -> None:
        self._places = asyncio.Semaphore(DEAR_READS)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """One of the places, in the order of asking; raises `Unavailable` when none comes free in time."""
        try:
            async with asyncio.timeout(DEAR_SECONDS):
                await self._places.acquire()
        except TimeoutError:
            rule = f"reads as dear as this one queue, {DEAR_READS} are served at once"
            raise Unavailable(f"the database is busy: {rule}", code="database_busy") from None
        try:
            yield
        finally:
            self._places.release()


class Services(NamedTuple):
    """Engine to read, writer to write, settings, the schema found at the start, known ids, streams, and the clock."""

    engine: AsyncEngine
    writer: TradeWriter
    settings: Settings
    schema: Status
    token_ids: dict[str, int]
    relay: Relay
    hub: Hub
    dear: Dear
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
        symbol = canonical_symbol(text)
        if (token_id := self.token_ids.get(symbol)) is not None:
            return symbol, token_id
        async with reading(self.engine) as connection:
            return await self.token(connection, symbol)


Given = NamedDependency[Services]
Incoming = Request[Any, Any, Any]
