"""What only the database knows, read in the background: a scrape shows what was found last, and never waits for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from sqlalchemy.ext.asyncio import AsyncEngine

from klines.database import reading
from klines.errors import Unavailable
from klines.metrics.family import Family, gauge, gauges
from klines.queries.standing import Standing, standing

READ_SECONDS = 15.0
RETRY_SECONDS = 5.0


class DatabaseStanding:
    """`seams`: whether the database's profile has bars that retire."""

    def __init__(self, engine: AsyncEngine, *, seams: bool) -> None:
        self._engine = engine
        self._seams = seams
        self._found: Standing | None = None
        self._read_at = 0.0
        self._up = False

    async def keep_reading(self) -> None:
        """Read it every so often, for ever; others say so when the database is away."""
        while True:
            try:
                async with reading(self._engine) as connection:
                    self._found = await standing(connection, seams=self._seams)
            except Unavailable:
                self._up = False
            else:
                self._up, self._read_at = True, time.time()
            await asyncio.sleep(READ_SECONDS if self._up else RETRY_SECONDS)

    def families(self) -> Iterable[Family]:
        """What was found last."""
        yield gauge("klines_database_up", "1: the database answered when last asked", self._up, "min")
        yield gauge("klines_database_read_timestamp_seconds", "When what follows was read", self._read_at, "max")
        found = self._found
        if found is None:
            return
        yield gauge("klines_tokens", "Registered tokens", found.tokens, "max")
        yield gauge("klines_notify_queue_ratio", "Used part of the notification queue", found.notify_queue, "max")
        yield gauge("klines_database_size_bytes", "Size of the database", found.database_bytes, "max")
        yield gauge("klines_database_sessions", "Sessions in the database, whoever has them", found.sessions, "max")
        yield gauge("klines_live_bars", "Bars in the live table, estimated", found.live_rows, "max")
        told = "Bars of the last 30 days that differed from their trades and were corrected"
        yield gauge("klines_bars_disagreed", told, found.disagreements, "max")
        told = "How far a seam is behind where it should be"
        lag = {relation.removeprefix("klines_"): seconds for relation, seconds in found.seam_lag.items()}
        yield gauges("klines_seam_lag_seconds", told, "interval", lag, "max")
