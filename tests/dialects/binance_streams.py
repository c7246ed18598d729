"""A client of Binance's WebSocket streams that holds every event against their rules as it arrives."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from klines.models import Trade
from tests.live.streams import DEADLINE, address_of

Event = dict[str, Any]

MEMBERS = {
    "kline": "e E s k",
    "trade": "e E s t p q T m M",
    "aggTrade": "e E s a p q f l T m M",
    "24hrMiniTicker": "e E s c o h l v q",
    "24hrTicker": "e E s p P w x c Q b B a A o h l v q O C F L n",
}
K = ["t", "T", "s", "i", "f", "L", "o", "c", "h", "l", "v", "n", "x", "q", "V", "Q", "B"]


class Client:
    """One connection: `answers` by id, `events` in their order without the wrapper, `names` of those that had one."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.messages: list[Event] = []
        self.answers: dict[Any, Event] = {}
        self.events: list[Event] = []
        self.names: list[str] = []
        self.closed: defaultdict[tuple[str, str], list[Event]] = defaultdict(list)
        self._ids = itertools.count(1000)
        self._came = asyncio.Event()
        self._broken: Exception | None = None
        self._reader = asyncio.create_task(self._read())

    async def ask(self, method: str, *params: Any, deadline: float = DEADLINE) -> Event:
        """Send a request and wait for its answer."""
        number = next(self._ids)
        await self.connection.send(json.dumps({"method": method, "params": params, "id": number}))
        await self.until(lambda: number in self.answers, deadline)
        return self.answers[number]

    async def subscribe(self, *names: str, deadline: float = DEADLINE) -> None:
        """Subscribe, and be told so."""
        answer = await self.ask("SUBSCRIBE", *names, deadline=deadline)
        assert answer["result"] is None, answer

    async def until(self, true: Callable[[], Any], deadline: float = DEADLINE) -> None:
        """Wait until it is so; fails at a broken rule, at the end of the connection and of the time."""
        try:
            async with asyncio.timeout(deadline):
                while not true():
                    self._came.clear()
                    self.check()
                    assert not self._reader.done(), f"closed: {self.connection.close_code}"
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"not in {deadline} s; last: {self.messages[-3:]}") from None
        self.check()

    async def ended(self) -> int | None:
        """Wait for the other side to close; its close code."""
        async with asyncio.timeout(DEADLINE):
            await self._reader
        self.check()
        return self.connection.close_code

    def of(self, kind: str) -> list[Event]:
        """The events of this kind."""
        return [event for event in self.events if event["e"] == kind]

    def trade_ids(self) -> list[int]:
        """The ids of the trade events, in their order."""
        return [event["t"] for event in self.of("trade")]

    def check(self) -> None:
        """Raise what a message broke."""
        if self._broken:
            raise self._broken

    async def leave(self) -> None:
        """Close, and wait for the end."""
        if self._broken:
            self.connection.transport.abort()
        await self.connection.close()
        await self._reader
        self.check()

    async def _read(self) -> None:
        try:
            async for text in self.connection:
                assert isinstance(text, str), "a binary message"
                self._take(json.loads(text))
                self._came.set()
        except (AssertionError, KeyError, ValueError) as error:
            self._broken = error
        except ConnectionClosed:
            pass
        finally:
            self._came.set()

    def _take(self, message: Any) -> None:
        self.messages.append(message)
        if isinstance(message, dict) and "id" in message:
            self.answers[message["id"]] = message
            return
        if isinstance(message, dict) and "stream" in message:
            assert message.keys() == {"stream", "data"}
            self.names.append(message["stream"])
            message = message["data"]
        for event in message if isinstance(message, list) else [message]:
            if "u" in event:
                assert list(event) == list("usbBaA"), event
                event["e"] = "bookTicker"
            else:
                assert list(event) == MEMBERS[event["e"]].split(), event
            if event["e"] == "kline":
                self._take_bar(event["k"])
            self.events.append(event)

    def _take_bar(self, bar: Event) -> None:
        """Bars come without gaps, in order, each closed once."""
        assert list(bar) == K, bar
        before = self.closed[bar["s"], bar["i"]]
        if before:
            width = before[-1]["T"] + 1 - before[-1]["t"]
            assert bar["t"] == before[-1]["t"] + width, f"after {before[-1]} came {bar}"
        if bar["x"]:
            before.append(bar)


@asynccontextmanager
async def joined(client: httpx.AsyncClient, target: str = "/ws", **options: Any) -> AsyncIterator[Client]:
    """A connection to the service of this client."""
    address = address_of(client, target)
    async with connect(address, proxy=None, compression=None, max_size=None, close_timeout=2, **options) as connection:
        joined = Client(connection)
        try:
            yield joined
        finally:
            await joined.leave()


_NAMES = {
    **{"t": "open_time", "T": "close_time", "o": "open", "h": "high", "l": "low", "c": "close"},
    **{"v": "volume", "q": "quote_volume", "n": "trades", "V": "buy_volume", "Q": "buy_quote_volume"},
}


def as_rest(bar: Event) -> Event:
    """What a bar of a stream has in common with one of native REST, as the latter names it."""
    return {name: bar[short] for short, name in _NAMES.items()}


def of_rest(bar: Event) -> Event:
    """The same of a bar of native REST."""
    return {name: bar[name] for name in _NAMES.values()}


async def as_filled(client: httpx.AsyncClient, bars: Sequence[Event], interval: str) -> None:
    """The bars are exactly what REST answers for their time."""
    span = {"from": bars[0]["t"], "to": bars[-1]["t"] + 1, "interval": interval, "fill": "prev", "limit": 5000}
    answer = await client.get("/api/v1/klines/PEPE", params=span)
    assert [as_rest(bar) for bar in bars] == [of_rest(bar) for bar in answer.json()["klines"]]


def ids(trades: Iterable[Trade]) -> list[int]:
    """The ids of trades."""
    return [trade.trade_id for trade in trades]
