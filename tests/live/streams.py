"""A client of the live streams that holds every message against the contract as it arrives.

`Tape` (trades) and `Chart` (bars) remember what one client was told; handed on to its next connection they hold the
rules over both. A broken rule fails the test at its next wait, at the latest when the stream is left.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from decimal import Decimal
from typing import Any, ClassVar, Generic, Self, TypeVar
from urllib.parse import quote, urlencode

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from klines.models import Trade
from tests import oracle

Message = dict[str, Any]
Row = dict[str, Any]

DEADLINE = 10.0
GRACE_MS = 500  # the default of KLINES_CLOSE_GRACE

_DECIMAL = re.compile(r"(0|[1-9][0-9]*)(\.[0-9]*[1-9])?")
_CURSOR = re.compile(r"[!-~]{1,200}")
_MEMBERS = {
    "symbol": re.compile(r"\S+"),
    "interval": re.compile("[1-9][0-9]*[smhdw]"),
    "cursor": _CURSOR,
    "server_time": int,
    "recovered": bool,
    "trades": list,
    "klines": list,
    "kline": dict,
    "feed": re.compile("live|stale"),
}
_TRADE = {
    **dict.fromkeys(("trade_id", "time", "time_us"), int),
    **dict.fromkeys(("price", "amount"), _DECIMAL),
    "side": re.compile("buy|sell"),
}
_KLINE: dict[str, Any] = {
    **dict.fromkeys(("open_time", "close_time", "trades", "first_trade_id", "last_trade_id"), int),
    **dict.fromkeys(("open", "high", "low", "close"), _DECIMAL),
    **dict.fromkeys(("volume", "quote_volume", "buy_volume", "buy_quote_volume"), _DECIMAL),
    "closed": bool,
}
_HEARTBEAT = {"feed", "server_time", "cursor"}


class Log:
    """What one client was told, over all its connections; `take` raises AssertionError for what it must not be told."""

    members: ClassVar[dict[str, set[str]]]

    def take(self, message: Message) -> None:
        raise NotImplementedError


class Tape(Log):
    """`trades` are those of the last snapshot that was not recovered, and everything told since, in order."""

    members: ClassVar = {
        "snapshot": {"symbol", "trades", "cursor", "server_time"},
        "trades": {"symbol", "trades", "cursor"},
        "heartbeat": _HEARTBEAT,
    }

    def __init__(self) -> None:
        self.trades: list[Row] = []
        self._told: set[tuple[int, int]] = set()

    def take(self, message: Message) -> None:
        rows = message.get("trades", [])
        for row in rows:
            assert row.keys() == _TRADE.keys(), row
            _check_members(row, _TRADE)
            assert row["time"] == row["time_us"] // 1000, row
        identities = {(row["trade_id"], row["time_us"]) for row in rows}
        assert len(identities) == len(rows), "a trade twice in one message"
        if message["type"] == "trades":
            assert rows, "a message without trades"
            assert not identities & self._told, f"told again: {sorted(identities & self._told)[:5]}"
            self.trades += rows
        elif message["type"] == "snapshot" and message.get("recovered"):
            assert rows == [], "after a recovered snapshot trades follow in their own messages"
        elif message["type"] == "snapshot":
            self.trades = list(rows)
        self._told |= identities


class Chart(Log):
    """`bars` by open time as they were last told, `closed` those told to be closed, `closings` told so in the stream.

    A recovered snapshot changes none of them: what it shows must follow in messages.
    """

    members: ClassVar = {
        "snapshot": {"symbol", "interval", "klines", "cursor", "server_time"},
        "kline": {"symbol", "interval", "kline", "cursor"},
        "revision": {"symbol", "interval", "kline", "cursor"},
        "heartbeat": _HEARTBEAT,
    }

    def __init__(self, interval: str, *, grace_ms: int = GRACE_MS, quiet: bool = False) -> None:
        self.interval = interval
        self.grace_ms = grace_ms
        # Without a trade of a later bar only the clock closes one, and it waits for the grace.
        self.quiet = quiet
        self.bars: dict[int, Row] = {}
        self.closed: set[int] = set()
        self.closings: list[int] = []
        self._resumed = False

    def after(self, messages: Iterable[Message]) -> Self:
        """A chart of the same kind that was told these messages."""
        chart = type(self)(self.interval, grace_ms=self.grace_ms, quiet=self.quiet)
        for message in messages:
            chart.take(message)
        return chart

    def oracle_bars(self) -> dict[int, oracle.Bar]:
        """The bars as `oracle.fold` has them, ascending."""
        return {opened * 1000: _bar(self.bars[opened]) for opened in sorted(self.bars)}

    def take(self, message: Message) -> None:
        assert message.get("interval", self.interval) == self.interval
        if message["type"] == "snapshot":
            self._snapshot(message["klines"], fresh=not message.get("recovered"))
        elif message["type"] == "kline":
            self._kline(message["kline"])
        elif message["type"] == "revision":
            self._revision(message["kline"])

    def _snapshot(self, rows: list[Row], *, fresh: bool) -> None:
        opened = [row["open_time"] for row in rows]
        assert opened == sorted(set(opened)), "bars of a snapshot ascend"
        for row in rows:
            self._check(row)
            assert row["closed"] or row["open_time"] not in self.closed, f"shown open after it was told closed: {row}"
        self._resumed = not fresh
        if fresh:
            self.bars = {row["open_time"]: row for row in rows}
            self.closed |= {row["open_time"] for row in rows if row["closed"]}

    def _kline(self, row: Row) -> None:
        self._check(row)
        assert row["open_time"] not in self.closed, f"a kline after it was told closed: {row}"
        self._tell(row)
        if row["closed"]:
            self.closings.append(row["open_time"])

    def _revision(self, row: Row) -> None:
        self._check(row)
        known = self.bars.get(row["open_time"])
        assert row["closed"], f"a revision of an open bar: {row}"
        # A bar that this client never heard of, because its snapshot did not reach that far, may be revised too.
        assert known is None or known["closed"], f"a revision instead of the end of {known}"
        # Only one who comes back may be told the same state again: what is missed comes in pages, bars come whole.
        new = known is None or row["trades"] > known["trades"] or self._resumed
        assert new, f"a revision that changes nothing: {row}"
        self._tell(row)

    def _tell(self, row: Row) -> None:
        self.bars[row["open_time"]] = row
        if row["closed"]:
            self.closed.add(row["open_time"])

    def _check(self, row: Row) -> None:
        assert row.keys() == _KLINE.keys(), row
        _check_members(row, _KLINE)
        width = oracle.seconds(self.interval) * 1000
        assert row["open_time"] * 1000 == oracle.opens(self.interval, row["open_time"] * 1000), row
        assert row["close_time"] == row["open_time"] + width - 1, row
        assert row["trades"] >= self.bars.get(row["open_time"], row)["trades"], f"fewer trades than before: {row}"
        if row["closed"]:
            grace_ms = self.grace_ms if self.quiet else 0
            assert time.time() * 1000 >= row["open_time"] + width + grace_ms, f"closed too early: {row}"


L = TypeVar("L", bound=Log)


class Stream(Generic[L]):
    """One connection, read and checked in the background: `messages` are all that came, `log` what they said.

    With `keeps`, for connections that last, `messages` are the first one and about so many of the latest.
    """

    def __init__(self, connection: ClientConnection, log: L, *, resumes: bool, keeps: int | None = None) -> None:
        self.connection = connection
        self.log = log
        self.messages: list[Message] = []
        self._resumes = resumes
        self._keeps = keeps
        self._position = 1
        self._came = asyncio.Event()
        self._broken: Exception | None = None
        self._reader = asyncio.create_task(self._read())

    @property
    def snapshot(self) -> Message:
        """The first message."""
        return self.messages[0]

    @property
    def cursor(self) -> str:
        """The cursor of the last message."""
        cursor: str = self.messages[-1]["cursor"]
        return cursor

    async def next(self, kind: str | None = None, *, deadline: float = DEADLINE) -> Message:
        """The next message after the one that was returned last (first: the snapshot) that is of this kind."""
        found: list[Message] = []

        def look(_: L) -> bool:
            while not found and self._position < len(self.messages):
                message = self.messages[self._position]
                self._position += 1
                if kind in {None, message["type"]}:
                    found.append(message)
            return bool(found)

        await self.until(look, deadline=deadline)
        return found[0]

    async def until(self, true: Callable[[L], bool], *, deadline: float = DEADLINE) -> None:
        """Wait until this holds for the log; fails when a rule is broken, the connection ends or the time is over."""
        try:
            async with asyncio.timeout(deadline):
                while not true(self.log):
                    self._came.clear()
                    self.check()
                    assert not self._reader.done(), f"closed: {self.connection.close_code}"
                    await self._came.wait()
        except TimeoutError:
            raise AssertionError(f"not in {deadline} s; last messages: {self.messages[-3:]}") from None
        self.check()

    async def ended(self) -> int | None:
        """Wait for the other side to close; its close code."""
        async with asyncio.timeout(DEADLINE):
            await self._reader
        self.check()
        return self.connection.close_code

    async def leave(self) -> None:
        """Close the connection and wait for its end."""
        if self._broken:
            # Nobody reads on, so the other side's close would not be seen either.
            self.connection.transport.abort()
        await self.connection.close()
        await self._reader

    def check(self) -> None:
        """Raise what a message broke."""
        if self._broken:
            raise self._broken

    async def _read(self) -> None:
        try:
            async for text in self.connection:
                assert isinstance(text, str), "a binary message"
                self._take(json.loads(text, parse_float=_no_float))
                self._came.set()
        except (AssertionError, ValueError, KeyError) as error:
            self._broken = error
        except ConnectionClosed:
            pass
        finally:
            self._came.set()

    def _take(self, message: Message) -> None:
        members = set(message)
        kind = message["type"]
        assert (kind == "snapshot") == (not self.messages), f"{kind} is message {len(self.messages)}"
        assert kind in self.log.members, f"unknown: {kind}"
        recovered = {"recovered"} if kind == "snapshot" and self._resumes else set()
        assert members == {"type"} | self.log.members[kind] | recovered, message
        _check_members(message, {name: _MEMBERS[name] for name in members - {"type"}})
        self.log.take(message)
        self.messages.append(message)
        if self._keeps and len(self.messages) > 2 * self._keeps:
            del self.messages[1 : -self._keeps]


@asynccontextmanager
async def listening(client: httpx.AsyncClient, path: str, log: L, **query: object) -> AsyncIterator[Stream[L]]:
    """Connect to the service of this client; its snapshot has arrived."""
    address = address_of(client, path + (f"?{urlencode(query)}" if query else ""))
    async with connect(address, proxy=None, max_size=None, compression=None, close_timeout=2) as connection:
        stream = Stream(connection, log, resumes="cursor" in query)
        try:
            await stream.until(lambda _: bool(stream.messages))
            yield stream
        finally:
            await stream.leave()
        stream.check()


def transactions(
    client: httpx.AsyncClient, tape: Tape | None = None, *, symbol: str = "PEPE", **query: object
) -> AbstractAsyncContextManager[Stream[Tape]]:
    """Listen to the trades of a token."""
    return listening(client, f"/ws/transactions/{quote(symbol)}", tape or Tape(), **query)


def klines(
    client: httpx.AsyncClient, chart: Chart, *, symbol: str = "PEPE", **query: object
) -> AbstractAsyncContextManager[Stream[Chart]]:
    """Listen to the bars of a token, of the interval of the chart."""
    return listening(client, f"/ws/klines/{quote(symbol)}/{chart.interval}", chart, **query)


def address_of(client: httpx.AsyncClient, target: str) -> str:
    """The WebSocket address of a path and query on the service of this client."""
    return str(client.base_url.copy_with(scheme="ws")).rstrip("/") + target


async def post(client: httpx.AsyncClient, *trades: Trade) -> None:
    """Store these trades, none of which is stored already."""
    answer = await client.post("/api/v1/trades", json={"trades": [trade._asdict() for trade in trades]}, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["inserted"] == len(trades)


def wire(*trades: Trade) -> list[Row]:
    """The trades as they are told."""
    return [
        {name: value for name, value in (trade._asdict() | {"time": trade.time_us // 1000}).items() if name != "symbol"}
        for trade in trades
    ]


def _check_members(row: Mapping[str, Any], rules: Mapping[str, Any]) -> None:
    for name, rule in rules.items():
        value = row[name]
        if isinstance(rule, type):
            assert type(value) is rule, f"{name}: {value!r}"
        else:
            assert isinstance(value, str) and rule.fullmatch(value), f"{name}: {value!r}"


def _bar(row: Row) -> oracle.Bar:
    members: dict[str, Any] = {name: row[name] for name in oracle.Bar._fields}
    members |= {name: Decimal(text) for name, text in members.items() if isinstance(text, str)}
    return oracle.Bar(**members)


def _no_float(text: str) -> float:
    raise ValueError(f"a float: {text}")
