"""A writer that commits straight into the database, and clients that follow it through whatever happens.

A follower comes back with its cursor and demands to be continued; a pair is one of each kind of stream on a token.
"""

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import urlencode, urlsplit

import asyncpg
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidMessage, InvalidStatus
from websockets.http11 import Response

from klines.models import Trade
from klines.timestamp import to_datetime
from tests import oracle
from tests.live.proxy import Proxy
from tests.live.streams import Chart, Log, Message, Stream, Tape, wire

PROMISED = 5.0  # from a fault's end to recovery, and from its beginning to `stale`
POLLED = 3.0
DEADLINE = 30.0
FOR_EVER = 3600.0
PAUSE = 0.01
US = 1_000_000
WATCHED = "PEPE"

INSERT = """
    INSERT INTO trades (token_id, trade_id, time, price, amount, side)
    SELECT token_id, trade_id, time, price::numeric, amount::numeric, side::trade_side
    FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::text[], $6::text[])
         AS batch (symbol, trade_id, time, price, amount, side)
    JOIN tokens USING (symbol)
    ORDER BY token_id, time, trade_id
    ON CONFLICT DO NOTHING
"""
REGISTER = "INSERT INTO tokens (symbol) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING"
LISTENERS = """
    SELECT pid FROM pg_stat_activity WHERE application_name = 'klines listener' AND datname = current_database()
"""
TERMINATE = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name LIKE $1 AND datname = current_database() AND pid <> pg_backend_pid()
"""

# How the driver tells that a connection ended under it.
LOST = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

L = TypeVar("L", bound=Log)


async def poll(true: Callable[[], Any], deadline: float = DEADLINE) -> None:
    """Ask until it is so: for what tells nobody when it changes."""
    never = asyncio.Event()
    async with asyncio.timeout(deadline):
        while not await true():
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await never.wait()


class Writer:
    """Commits trades straight into a database: `committed` per token, in the order in which streams must tell them.

    A commit whose answer was lost is sent again until the database answers.
    """

    def __init__(self, url: str, *symbols: str) -> None:
        self.symbols = symbols
        self.committed: dict[str, list[Trade]] = {symbol: [] for symbol in symbols}
        self.trade_ids = itertools.count(1)
        self._url = url
        self._chance = random.Random(3)  # noqa: S311 - a test's own market
        self._known: set[tuple[str, int, int]] = set()
        self._connection: asyncpg.Connection[Any] | None = None
        self._over = asyncio.Event()

    @property
    def count(self) -> int:
        """How many trades of the watched token are committed."""
        return len(self.committed[self.symbols[0]])

    def trade(self, symbol: str, seconds_ago: float = 0.0) -> Trade:
        """A trade of its own."""
        number = next(self.trade_ids)
        at = time.time_ns() // 1000 - int(seconds_ago * US)
        return Trade(
            symbol, number, at, f"0.0{number % 89 + 10}1", f"{number % 5 + 1}.5", "buy" if number % 3 else "sell"
        )

    async def commit(self, *batch: Trade) -> None:
        """Commit in one statement; what is stored already changes nothing."""
        while not await self._answered(INSERT, *self._columns(batch)):
            pass
        for trade in sorted(batch, key=lambda trade: (trade.time_us, trade.trade_id)):
            identity = (trade.symbol, trade.trade_id, trade.time_us)
            if identity not in self._known:
                self._known.add(identity)
                self.committed[trade.symbol].append(trade)

    async def run(self) -> None:
        """Commit small batches: new trades, some late, some repeated, of all tokens."""
        while not self._over.is_set():
            await self.commit(*self._batch())
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await self._over.wait()

    def end(self) -> None:
        """Let `run` return after its commit."""
        self._over.set()

    async def register(self) -> None:
        """Make the tokens known."""
        assert await self._answered(REGISTER, list(self.symbols))

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close(timeout=DEADLINE)

    def _batch(self) -> list[Trade]:
        late = self._chance.choices([0.2, 3, 100], [90, 7, 3])
        batch = [
            self.trade(self._chance.choice(self.symbols), self._chance.random() * late[0])
            for _ in range(self._chance.randint(1, 4))
        ]
        told = self.committed[self.symbols[0]]
        return batch + ([self._chance.choice(told)] if told and self._chance.random() < 0.1 else [])

    def _columns(self, batch: Sequence[Trade]) -> list[list[Any]]:
        columns = [list(column) for column in zip(*batch, strict=True)]
        columns[2] = [to_datetime(time_us) for time_us in columns[2]]
        return columns

    async def _answered(self, statement: str, *arguments: Any) -> bool:
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = await asyncpg.connect(self._url, timeout=DEADLINE)
            await self._connection.execute(statement, *arguments)
        except LOST:
            if self._connection is not None:
                self._connection.terminate()
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await asyncio.Event().wait()
            return False
        return True


@asynccontextmanager
async def writer_of(url: str, *symbols: str) -> AsyncIterator[Writer]:
    """A writer of these tokens, which exist; it commits what it is told to."""
    writer = Writer(url, *(symbols or (WATCHED, "WIF")))
    try:
        await writer.register()
        yield writer
    finally:
        await writer.close()


@asynccontextmanager
async def running(writer: Writer) -> AsyncIterator[None]:
    """While the context is open the writer commits on and on."""
    task = asyncio.create_task(writer.run())
    try:
        yield
    finally:
        writer.end()
        await task


class Follower(Generic[L]):
    """A client that comes back with its last cursor whenever its connection ends; every snapshot must be recovered.

    `heard` are all messages with their monotonic times, `codes` how its connections ended. `url` is where it connects.
    With `keeps`, for one that stays long, about so many of the latest messages are kept.
    """

    def __init__(self, url: str, path: str, log: L, *, keeps: int | None = None, **query: object) -> None:
        self.url = url
        self.keeps = keeps
        self.log = log
        self.cursor: str | None = None
        self.heard: list[tuple[float, Message]] = []
        self.codes: list[int | None] = []
        self.refusals: list[Response] = []
        self.connection: ClientConnection | None = None
        self._path = path
        self._query = query
        self._told = log.take
        log.take = self._take  # type: ignore[method-assign]
        self._moved = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: self._moved.set())

    @property
    def feed(self) -> str | None:
        """What the last heartbeat said."""
        return next((one["feed"] for _, one in reversed(self.heard) if one["type"] == "heartbeat"), None)

    async def until(self, true: Callable[[L], bool], *, deadline: float = DEADLINE) -> None:
        """Wait until this holds, over any number of connections; fails when a rule is broken."""
        try:
            async with asyncio.timeout(deadline):
                while not true(self.log):
                    self._moved.clear()
                    self.check()
                    await self._moved.wait()
        except TimeoutError:
            last = [message for _, message in self.heard[-3:]]
            raise AssertionError(f"not in {deadline} s: {self._path}, ends {self.codes}, last {last}") from None
        self.check()

    async def tells(self, feed: str, *, deadline: float = PROMISED) -> None:
        """Wait until the last heartbeat says so."""
        await self.until(lambda _: self.feed == feed, deadline=deadline)

    async def leave(self) -> None:
        """End, and raise what a message broke."""
        self.check()
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def check(self) -> None:
        """Raise what a message broke."""
        if self._task.done():
            self._task.result()

    def _take(self, message: Message) -> None:
        if message["type"] == "snapshot":
            assert message.get("recovered") is (None if self.cursor is None else True), message
        self._told(message)
        self.cursor = message["cursor"]
        self.heard.append((time.monotonic(), message))
        if self.keeps and len(self.heard) > 2 * self.keeps:
            del self.heard[: -self.keeps]
        self._moved.set()

    async def _run(self) -> None:
        while True:
            try:
                async with connect(self._address(), proxy=None, compression=None, max_size=None) as connection:
                    await self._listen(connection)
            except InvalidStatus as refused:
                self.refusals.append(refused.response)
                assert refused.response.status_code == 503, refused.response
            except (OSError, EOFError, InvalidMessage, ConnectionClosed):
                pass  # cut on its way in
            self._moved.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(PAUSE):
                    await asyncio.Event().wait()

    async def _listen(self, connection: ClientConnection) -> None:
        stream = Stream(connection, self.log, resumes=self.cursor is not None, keeps=self.keeps)
        self.connection = connection
        try:
            await stream.until(lambda _: False, deadline=FOR_EVER)
        except AssertionError:
            stream.check()
        finally:
            self.connection = None
            await stream.leave()
        self.codes.append(connection.close_code)

    def _address(self) -> str:
        query = self._query if self.cursor is None else {"cursor": self.cursor}
        return f"{self.url.replace('http', 'ws', 1)}{self._path}" + (f"?{urlencode(query)}" if query else "")


@asynccontextmanager
async def following(
    url: str, path: str, log: L, *, keeps: int | None = None, **query: object
) -> AsyncIterator[Follower[L]]:
    """A follower that has its first snapshot."""
    follower = Follower(url, path, log, keeps=keeps, **query)
    try:
        await follower.until(lambda _: bool(follower.heard))
        yield follower
    except BaseException:
        follower._task.cancel()
        raise
    await follower.leave()


class Pair(NamedTuple):
    """A follower of a token's trades and followers of its bars."""

    trades: Follower[Tape]
    charts: tuple[Follower[Chart], ...]

    @property
    def all(self) -> list[Follower[Any]]:
        return [self.trades, *self.charts]

    async def has(self, count: int, *, deadline: float = DEADLINE) -> None:
        """Wait until so many trades are told."""
        await self.trades.until(lambda tape: len(tape.trades) >= count, deadline=deadline)

    async def tells(self, feed: str, *, deadline: float = PROMISED) -> None:
        """Wait until all of them are told so."""
        for follower in self.all:
            await follower.tells(feed, deadline=deadline)

    async def holds(self, writer: Writer, *, deadline: float = DEADLINE) -> None:
        """`told`, of everything that this writer committed for its first token."""
        await self.told(writer.committed[writer.symbols[0]], deadline=deadline)

    async def told(self, committed: list[Trade], *, deadline: float = DEADLINE) -> None:
        """Wait until all of it is told: each trade once, in the order of the commits; each bar right, closed once."""
        await self.has(len(committed), deadline=deadline)
        assert self.trades.log.trades == wire(*committed)
        for chart in self.charts:
            await charted(chart, committed, deadline)

    def stayed(self) -> None:
        """They are still on their first connection."""
        assert [follower.codes for follower in self.all] == [[]] * len(self.all)
        assert all(follower.connection for follower in self.all)


async def charted(chart: Follower[Chart], committed: list[Trade], deadline: float = DEADLINE) -> None:
    """Wait until these bars are told, and those closed that have ended; a second wide, each will have."""
    expected = oracle.fold(committed, chart.log.interval)
    await chart.until(lambda log: log.oracle_bars() == expected, deadline=deadline)
    width_ms = oracle.seconds(chart.log.interval) * 1000
    now_ms = time.time() * 1000
    over_ms = now_ms if width_ms == 1000 else now_ms - width_ms - chart.log.grace_ms
    ended = {opened // 1000 for opened in expected if opened <= over_ms * 1000}
    await chart.until(lambda log: ended <= log.closed, deadline=deadline)
    assert len(set(chart.log.closings)) == len(chart.log.closings), "closed twice"


@asynccontextmanager
async def paired(url: str, *intervals: str, symbol: str = WATCHED, grace_ms: int = 500) -> AsyncIterator[Pair]:
    """Followers of a token, from its first trade on."""
    async with AsyncExitStack() as stack:
        trades = await stack.enter_async_context(following(url, f"/ws/transactions/{symbol}", Tape()))
        charts = [
            await stack.enter_async_context(
                following(url, f"/ws/klines/{symbol}/{interval}", Chart(interval, grace_ms=grace_ms), history=1000)
            )
            for interval in intervals or ("1s",)
        ]
        yield Pair(trades, tuple(charts))


@contextmanager
def before(url: str) -> Iterator[Proxy]:
    """A proxy between clients and the service at `url`."""
    parts = urlsplit(url)
    assert parts.hostname and parts.port
    with Proxy((parts.hostname, parts.port)) as proxy:
        yield proxy


def address_of(proxy: Proxy) -> str:
    """The URL of the service behind it."""
    return f"http://127.0.0.1:{proxy.port}"
