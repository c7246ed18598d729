"""The one writer of a benchmark: it inserts as `klines.writer` does, and remembers when each commit was made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from klines.writer import INSERT_NEW, array_text

# A trade's id is its token's id times this, plus its number in the token's feed: the writer is the only one.
PER_TOKEN = 10**9


class Writer:
    """INSERT from arrays, one statement and one commit per batch; a token goes by its place in the list of ids.

    `sent` and `committed` say by trade id when the statement was sent and when it returned: monotonic nanoseconds.
    """

    def __init__(self, connection: asyncpg.Connection[Any], ids: Sequence[int]) -> None:
        self.connection, self.ids = connection, ids
        self.sent: dict[int, int] = {}
        self.committed: dict[int, int] = {}
        self._numbers = dict.fromkeys(ids, 0)

    async def write(self, places: Sequence[int], amount: str = "1.5") -> None:
        """One trade, now, for each of these places."""
        tokens = [self.ids[place] for place in places]
        trades = []
        for token in tokens:
            self._numbers[token] += 1
            trades.append(token * PER_TOKEN + self._numbers[token])
        rows = columns(len(tokens), amount)
        self.sent.update(dict.fromkeys(trades, time.monotonic_ns()))
        await self.connection.execute(INSERT_NEW, array_text(map(str, tokens)), array_text(map(str, trades)), *rows)
        self.committed.update(dict.fromkeys(trades, time.monotonic_ns()))

    async def paced(self, batches: Iterable[Sequence[int]], period: float) -> float:
        """Write a batch every `period` seconds, or when the one before is done; the seconds all of them took."""
        self.sent, self.committed = {}, {}
        began = time.monotonic()
        for number, batch in enumerate(batches):
            await asyncio.sleep(began + number * period - time.monotonic())
            await self.write(batch)
        return time.monotonic() - began


def columns(count: int, amount: str) -> list[str]:
    """Times, prices, amounts and sides of so many trades that happen now, as texts of arrays."""
    row = (str(time.time_ns() // 1000), "0.000123", amount, "buy")
    return [array_text([value] * count) for value in row]
