"""The clients of a soak: followers that come back, Binance clients that begin anew, readers, and some that are slow."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any, ClassVar

import httpx
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus

from tests.live.followers import Follower, following
from tests.live.streams import Chart, Log, Message, Tape
from tests.live.test_slow_clients import stalled

KEEPS = 20
RETRY_SECONDS = 0.2
READ_SECONDS = 0.2
STALL_SECONDS = 20.0
CHURN_SECONDS = 0.5
MAX_TIMES = 50_000
PATHS = (
    "/api/v1/klines/{}?interval=1m&limit=200",
    "/api/v1/klines/{}?interval=45s&limit=100",
    "/api/v1/trades/{}?limit=500",
    "/api/v1/tokens?sort=volume",
    "/api/v3/klines?symbol={}&interval=1m",
    "/api/v3/ticker/24hr?symbol={}",
)


class Numbers(Log):
    """The numbers of the trades of a token, in the order in which they were told; none twice."""

    members: ClassVar = Tape.members

    def __init__(self) -> None:
        self.told: list[int] = []
        self._known: set[int] = set()

    def take(self, message: Message) -> None:
        for row in message.get("trades", []):
            assert row["trade_id"] not in self._known, f"told again: {row}"
            self._known.add(row["trade_id"])
            self.told.append(row["trade_id"])


class Crowd:
    """All clients of one service: `numbers` by token, `charts` by token and interval, readers' `answers` by status."""

    def __init__(self, url: str, symbols: Sequence[str], seed: int) -> None:
        self.url = url
        self.symbols = symbols
        self.numbers: dict[str, Follower[Numbers]] = {}
        self.charts: dict[tuple[str, str], Follower[Chart]] = {}
        self.slices: list[tuple[str, list[int]]] = []
        self.answers: Counter[int] = Counter()
        self.times: list[float] = []
        self.stalled = 0
        self._chance = random.Random(seed)  # noqa: S311 - who does what, when

    @property
    def followers(self) -> list[Follower[Any]]:
        """All that come back with their cursors."""
        return [*self.numbers.values(), *self.charts.values()]

    async def join(self, stack: AsyncExitStack, native: int) -> None:
        """So many followers: one of the trades of each token first, then of bars of seconds and of minutes."""
        for place in range(native):
            symbol = self.symbols[place % len(self.symbols)]
            if place < len(self.symbols):
                path = f"/ws/transactions/{symbol}"
                self.numbers[symbol] = await stack.enter_async_context(
                    following(self.url, path, Numbers(), keeps=KEEPS)
                )
                continue
            interval = ("1s", "1m")[place % 2]
            path = f"/ws/klines/{symbol}/{interval}"
            self.charts[symbol, interval] = await stack.enter_async_context(
                following(self.url, path, Chart(interval), keeps=KEEPS, history=1000)
            )

    async def churn(self) -> None:
        """Cut one follower after the other, for ever."""
        while True:
            await asyncio.sleep(CHURN_SECONDS)
            if connection := self._chance.choice(self.followers).connection:
                connection.transport.abort()

    async def stall(self) -> None:
        """Be a client that reads nothing, for a while, for ever."""
        while True:
            target = f"/ws/transactions/{self._chance.choice(self.symbols)}"
            with suppress(OSError, EOFError, InvalidStatus, InvalidMessage, ConnectionClosed):
                async with stalled(self.url, target, history=1000):
                    self.stalled += 1
                    await asyncio.sleep(STALL_SECONDS)
            await asyncio.sleep(RETRY_SECONDS)

    async def read(self) -> None:
        """Read by REST, for ever."""
        async with httpx.AsyncClient(base_url=self.url, timeout=30) as client:
            while True:
                path = self._chance.choice(PATHS).format(self._chance.choice(self.symbols))
                begun = time.monotonic()
                answer = await client.get(path)
                assert answer.status_code in {200, 503}, (path, answer.status_code, answer.text)
                self.answers[answer.status_code] += 1
                if answer.status_code == 200 and len(self.times) < MAX_TIMES:
                    self.times.append(time.monotonic() - begun)
                await asyncio.sleep(READ_SECONDS)

    async def trade_stream(self, symbol: str) -> None:
        """Be a Binance client, for ever; `slices` has what each of its connections was told."""
        address = f"{self.url.replace('http', 'ws', 1)}/stream?streams={symbol}@trade/{symbol}@kline_1m"
        while True:
            told: list[int] = []
            self.slices.append((symbol, told))
            with suppress(OSError, EOFError, InvalidStatus, InvalidMessage, ConnectionClosed):
                async with connect(address, proxy=None, compression=None) as connection:
                    async for text in connection:
                        event = json.loads(text)["data"]
                        if event["e"] == "trade":
                            told.append(event["t"])
            await asyncio.sleep(RETRY_SECONDS)


@asynccontextmanager
async def crowded(url: str, symbols: Sequence[str], native: int, binance: int, seed: int) -> AsyncIterator[Crowd]:
    """All clients are there; whatever one of them finds wrong is raised at the end."""
    crowd = Crowd(url, symbols, seed)
    async with AsyncExitStack() as stack:
        await crowd.join(stack, native)
        streams = [crowd.trade_stream(symbols[place % len(symbols)]) for place in range(binance)]
        work = [*streams, crowd.churn(), crowd.stall(), crowd.stall(), crowd.read(), crowd.read()]
        tasks = [asyncio.create_task(one) for one in work]
        try:
            yield crowd
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
    wrong = [end for end in ends if isinstance(end, Exception)]
    if wrong:
        raise ExceptionGroup("clients", wrong)
