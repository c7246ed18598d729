"""One course of events: its tokens, what was sent of them, who listens, and how it must end."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

from klines.models import Trade
from tests.faults.load import register
from tests.faults.oracles import Account, Ledger, assert_exact, taped
from tests.live.followers import Follower, charted, following
from tests.live.streams import Chart, Tape, wire
from tests.machine.arena import GRACE_MS, Arena

US = 1_000_000
SETTLED = 30.0
_names = itertools.count(1)


class Listener(NamedTuple):
    """A client of one of the tokens, and how many trades of it were stored when it came."""

    token: int
    begin: int
    follower: Follower[Any]


class Course:
    """Everything happens one after the other, in the arena's loop; tokens and trades are the course's own."""

    def __init__(self, arena: Arena) -> None:
        number = next(_names)
        self.arena = arena
        self.symbols = (f"COURSE{number}", f"BESIDE{number}")
        self.ledger = Ledger()
        self.sent: list[Trade] = []
        self.listeners: list[Listener] = []
        self._stalled: set[int] = set()
        self._ids = itertools.count(1)
        self._stack = AsyncExitStack()

    async def begin(self) -> None:
        """The tokens exist, and somebody listens to the first."""
        await register(self.arena.client, *self.symbols)
        await self.listen(0, None)
        await self.listen(0, "1s")

    async def post(self, batch: Sequence[tuple[int, float]], price: str) -> None:
        """Send new trades, (token, age in seconds) each, in the order given."""
        trades = [self._trade(token, age, price) for token, age in batch]
        await self.ledger.persist(self.arena.client, *trades)
        self.sent += trades

    async def repeat(self, first: int, count: int) -> None:
        """Send trades that are stored again."""
        first %= max(1, len(self.sent))
        if again := self.sent[first : first + count]:
            answer = await self.ledger.post(self.arena.client, *again)
            receipt = answer.json() if answer and answer.status_code == 200 else None
            assert receipt is None or (receipt["inserted"], receipt["conflicts"]) == (0, 0), receipt

    async def contradict(self, place: int) -> None:
        """Send a stored trade with another amount."""
        if self.sent:
            other = self.sent[place % len(self.sent)]._replace(amount="123456.789")
            answer = await self.ledger.post(self.arena.client, other)
            receipt = answer.json() if answer and answer.status_code == 200 else None
            assert receipt is None or (receipt["inserted"], receipt["conflicts"]) == (0, 1), receipt

    async def listen(self, token: int, interval: str | None) -> None:
        """One more client: of the trades, or of the bars."""
        symbol = self.symbols[token]
        begin = sum(trade.symbol == symbol for trade in self.sent)
        log: Any = Chart(interval, grace_ms=GRACE_MS) if interval else Tape()
        path = f"/ws/klines/{symbol}/{interval}" if interval else f"/ws/transactions/{symbol}"
        query = {"history": 1000} if interval else {}
        follower = await self._stack.enter_async_context(following(self.arena.url, path, log, **query))
        self.listeners.append(Listener(token, begin, follower))

    def drop(self, place: int) -> None:
        """Cut one client's connection; it comes back with its cursor."""
        place %= len(self.listeners)
        if connection := self.listeners[place].follower.connection:
            connection.transport.abort()

    def stall(self, place: int) -> None:
        """Let a client read nothing."""
        place %= len(self.listeners)
        if connection := self.listeners[place].follower.connection:
            connection.transport.pause_reading()
            self._stalled.add(place)

    def read_on(self) -> None:
        """Let all clients read."""
        for place in self._stalled:
            connection = self.listeners[place].follower.connection
            if connection is not None and not connection.transport.is_closing():
                connection.transport.resume_reading()
        self._stalled.clear()

    async def settle(self) -> Account:
        """O1, O2 and O3; the account."""
        self.read_on()
        await self.post([(0, 0.0), (1, 0.0)], "7.5")
        account = await assert_exact(self.arena.database.url, self.arena.client, self.ledger)
        assert account.acknowledged == len(self.sent)
        tapes = [await taped(self.arena.database.url, symbol) for symbol in self.symbols]
        for token, begin, follower in self.listeners:
            if isinstance(follower.log, Chart):
                await charted(follower, tapes[token], SETTLED)
            else:
                await has_told(follower, tapes[token][begin:])
        return account

    async def end(self) -> None:
        """Everybody leaves."""
        await self._stack.aclose()

    def _trade(self, token: int, age: float, price: str) -> Trade:
        number = next(self._ids)
        at = time.time_ns() // 1000 - int(age * US)
        side: Any = "buy" if number % 3 else "sell"
        return Trade(self.symbols[token], number, at, price, f"{number % 5 + 1}.5", side)


async def has_told(follower: Follower[Tape], trades: Sequence[Trade]) -> None:
    """Wait until a client has been told these trades, and nothing else, in this order."""
    await follower.until(lambda log: len(log.trades) >= len(trades), deadline=SETTLED)
    assert follower.log.trades == wire(*trades)
