"""The versions of tokens as they are now, for whoever holds an answer and must know whether it still stands.

Who asks gets what a read says that began after the question: so it has seen every commit that the asker can know of,
whoever made it. Those who ask while one read goes on share the next, whatever tokens they ask for, so however many
requests there are, one short statement at a time is under way, on a connection of its own with plans by key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncEngine

from klines.background import running
from klines.database import open_engine, reading
from klines.errors import Unavailable
from klines.queries.versions import Found, Version, prepared

MOST = 256
"""Tokens in one statement; more wait for the next."""
SECONDS = 1
"""For a statement. Who waited in vain reads what he asked for, and that says what is wrong."""
RETRY_SECONDS = 0.5


class _Asked(NamedTuple):
    token_id: int
    answer: asyncio.Future[Version]


class Versions:
    """Asked by requests, read by one task. `lost` is called when no version that was told before means anything."""

    def __init__(self, engine: AsyncEngine, lost: Callable[[], None]) -> None:
        self._engine = engine
        self._lost = lost
        self._asked: list[_Asked] = []
        self._stir = asyncio.Event()
        self._reads = False

    async def version(self, token_id: int) -> Version:
        """The version of a token from now on; raises `Unavailable` at once where it cannot be read."""
        if not self._reads:
            raise _away()
        asked = _Asked(token_id, asyncio.get_running_loop().create_future())
        # As many as there are requests.
        self._asked.append(asked)
        self._stir.set()
        return await asked.answer

    async def read(self) -> None:
        """Answer, as long as one connection lasts: on another one the server may be another one, too."""
        try:
            async with reading(self._engine) as connection:
                read = await prepared(connection)
                self._reads = True
                while True:
                    await self._stir.wait()
                    self._stir.clear()
                    while self._asked:
                        await self._turn(read)
        finally:
            self._reads = False
            self._lost()
            for _, answer in self._asked:
                if not answer.done():
                    answer.set_exception(_away())
            self._asked.clear()

    async def _turn(self, read: Callable[[Collection[int]], Awaitable[Found]]) -> None:
        batch = self._asked[:MOST]
        found = await read({token_id for token_id, _ in batch})
        # Only now, so that a failure finds all of them waiting.
        del self._asked[: len(batch)]
        for token_id, answer in batch:
            if not answer.done():
                answer.set_result(found.get(token_id))


@asynccontextmanager
async def open_versions(url: str, lost: Callable[[], None]) -> AsyncIterator[Versions]:
    """The versions in the database at `url`, while the context is open."""
    async with open_engine(url, statement_seconds=SECONDS, by_key=True, autocommit=True) as engine:
        found = Versions(engine, lost)
        async with running("reader of versions", found.read, RETRY_SECONDS):
            yield found


def _away() -> Unavailable:
    return Unavailable("the database does not answer", code="database_unavailable")
