"""Careful clients over HTTP that a fault meets: they send every batch until it is acknowledged.

`posting` keeps some of them busy with new, late and repeated trades; the `Ledger` knows what became of each.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx

from klines.models import Trade
from tests.faults.oracles import Account, Ledger, assert_exact, taped
from tests.live.followers import DEADLINE, Pair, paired

SENT_LAST = 100
US = 1_000_000


class Load:
    """Careful clients, who share one market: `acknowledged_at` are the monotonic times of the latest answers."""

    def __init__(self, client: httpx.AsyncClient, symbols: Sequence[str], *, seed: int, most: int) -> None:
        self.ledger = Ledger()
        self.client = client
        self.symbols = symbols
        self.acknowledged_at: deque[float] = deque(maxlen=10_000)
        self.batches = 0
        self._most = most
        self._ids = itertools.count(1)
        self._chance = random.Random(seed)  # noqa: S311 - a test's own market
        self._sent: deque[Trade] = deque(maxlen=SENT_LAST)
        self._moved = asyncio.Event()
        self._over = False
        self._tasks: list[asyncio.Task[None]] = []

    def trade(self, symbol: str | None = None, seconds_ago: float = 0.0) -> Trade:
        """A new trade."""
        number = next(self._ids)
        at = time.time_ns() // 1000 - int(seconds_ago * US)
        price, amount = f"0.0{number % 89 + 10}1", f"{number % 5 + 1}.5"
        side: Any = "buy" if number % 3 else "sell"
        return Trade(symbol or self._chance.choice(self.symbols), number, at, price, amount, side)

    async def more(self, batches: int, *, deadline: float = DEADLINE) -> None:
        """Wait until so many more batches are acknowledged."""
        wanted = self.batches + batches
        async with asyncio.timeout(deadline):
            while self.batches < wanted:
                self._moved.clear()
                await self._moved.wait()

    async def back(self, since: float, *, deadline: float = DEADLINE) -> float:
        """Wait for the first answer to a batch after this monotonic time; how long after."""
        async with asyncio.timeout(deadline):
            while not self.acknowledged_at or self.acknowledged_at[-1] <= since:
                self._moved.clear()
                await self._moved.wait()
        return next(at for at in self.acknowledged_at if at > since) - since

    async def moment(self, most_s: float) -> None:
        """Let a random time pass: a fault is to come at any moment, not at one that our code chooses."""
        await asyncio.sleep(self._chance.random() * most_s)

    def begin(self, clients: int = 2, pause_s: float = 0.005) -> None:
        """Let so many clients send, each with this pause between two batches."""
        self._tasks = [asyncio.create_task(self._run(pause_s)) for _ in range(clients)]

    async def end(self) -> None:
        """Every client stops once its batch is acknowledged; afterwards the ledger does not change."""
        self._over = True
        async with asyncio.timeout(DEADLINE):
            await asyncio.gather(*self._tasks)

    async def _run(self, pause_s: float) -> None:
        while not self._over:
            batch = self._batch()
            await self.ledger.persist(self.client, *batch)
            self._sent += batch
            self.batches += 1
            self.acknowledged_at.append(time.monotonic())
            self._moved.set()
            await asyncio.sleep(pause_s)

    def _batch(self) -> list[Trade]:
        late = self._chance.choices([0.2, 3, 100], [90, 7, 3])[0]
        size = self._chance.randint(1, self._most)
        batch = [self.trade(seconds_ago=self._chance.random() * late) for _ in range(size)]
        repeats = self._chance.random() < 0.1 and self._sent
        return [*batch, self._chance.choice(self._sent)] if repeats else batch


async def register(client: httpx.AsyncClient, *symbols: str) -> None:
    """Make tokens known, so that streams of them can be opened before their first trade."""
    for symbol in symbols:
        answer = await client.put(f"/api/v1/tokens/{quote(symbol, safe='')}", json={})
        assert answer.status_code in {200, 201}, answer.text


@asynccontextmanager
async def posting(url: str, *symbols: str, seed: int = 1, most: int = 8) -> AsyncIterator[Load]:
    """Clients that `begin` to send batches of at most so many trades of these tokens, which exist."""
    async with httpx.AsyncClient(base_url=url, timeout=20) as client:
        load = Load(client, symbols, seed=seed, most=most)
        await register(client, *symbols)
        try:
            yield load
        finally:
            await load.end()


@asynccontextmanager
async def watching(url: str, symbols: Sequence[str], *intervals: str) -> AsyncIterator[dict[str, Pair]]:
    """Followers of the trades and bars of each of these tokens."""
    async with AsyncExitStack() as stack:
        yield {one: await stack.enter_async_context(paired(url, *intervals, symbol=one)) for one in symbols}


async def assert_held(database_url: str, load: Load, pairs: dict[str, Pair]) -> Account:
    """Let the clients end; then O1, O2 and O3: the account."""
    await load.end()
    account = await assert_exact(database_url, load.client, load.ledger)
    for symbol, pair in pairs.items():
        await pair.told(await taped(database_url, symbol))
    return account
