"""The one writer of a benchmark: it inserts as `klines.writer` does, and remembers when each commit returned."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg

from klines.writer import INSERT

# A trade's id is its token's id times this, plus its number in the token's feed: the writer is the only one.
PER_TOKEN = 10**9


class Writer:
    """INSERT from arrays, one statement and one commit per batch; a token goes by its place in the list of ids.

    `committed` says by trade id, and `took` in order, when commits returned and how long they took: nanoseconds.
    """

    def __init__(self, connection: asyncpg.Connection[Any], ids: Sequence[int]) -> None:
        self.connection, self.ids = connection, ids
        self.committed: dict[int, int] = {}
        self.took: list[int] = []
        self._numbers = dict.fromkeys(ids, 0)

    async def write(self, places: Sequence[int], amount: str = "1.5") -> None:
        """One trade, now, for each of these places."""
        tokens = [self.ids[place] for place in places]
        trades = []
        for token in tokens:
            self._numbers[token] += 1
            trades.append(token * PER_TOKEN + self._numbers[token])
        count, began = len(tokens), time.monotonic_ns()
        rows = ([datetime.now(UTC)] * count, ["0.000123"] * count, [amount] * count, ["buy"] * count)
        await self.connection.execute(INSERT, tokens, trades, *rows)
        now = time.monotonic_ns()
        self.took.append(now - began)
        self.committed.update(dict.fromkeys(trades, now))

    async def paced(self, batches: Iterable[Sequence[int]], period: float) -> float:
        """Write a batch every `period` seconds, or when the one before is done; the seconds all of them took."""
        self.committed, self.took = {}, []
        began = time.monotonic()
        for number, batch in enumerate(batches):
            await asyncio.sleep(began + number * period - time.monotonic())
            await self.write(batch)
        return time.monotonic() - began
