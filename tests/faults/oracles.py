"""What must hold after any fault: every run ends by these, whatever was broken.

O1 `Ledger.account`: no acknowledged trade is lost, none stored twice or altered, none stored that was refused.
O2 `assert_bars`: bars in SQL and REST are the fold of the stored trades, told once more without SQL.
O3 `Pair.told` with `taped`: streams told every trade once in the order of the commits, and every bar as it is.
O4 `Resources`: what a process holds comes back to where it was.
O5 `assert_quiet`: the log has no traceback.

`assert_exact` is O1 and O2 together.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import quote

import asyncpg
import httpx
import psutil

from klines.models import Trade
from klines.timestamp import to_us
from tests import oracle
from tests.live.followers import poll
from tests.storage.bars import bars, stored_trades

Identity = tuple[str, int, int]
PAGE = 5000
BASELINE_SECONDS = 60.0
# Files and connections that a process may hold more than before: pools grow to their size at the first use.
SPARE = 12

TAPED = """
    SELECT t.trade_id, t.time, t.price, t.amount, t.side
    FROM klines_internal.tape AS p JOIN tokens USING (token_id),
         unnest(trade_ids, times, prices, amounts, sides) AS t (trade_id, time, price, amount, side)
    WHERE symbol = $1 ORDER BY p.sequence, t.time, t.trade_id
"""
COUNT = "SELECT count(*) FROM trades JOIN tokens USING (token_id) WHERE symbol = $1"


class Account(NamedTuple):
    """How many trades were acknowledged, refused or left unknown, and how many of them are not what they must be."""

    acknowledged: int
    refused: int
    unknown: int
    lost: int
    duplicated: int
    phantom: int
    altered: int

    @property
    def figures(self) -> dict[str, int]:
        """For the fixture `figures`."""
        return {name: getattr(self, name) for name in ("acknowledged", "unknown", "lost", "duplicated", "phantom")}

    def assert_clean(self) -> None:
        """Fail if a trade is lost, duplicated, a phantom or altered."""
        assert (self.lost, self.duplicated, self.phantom, self.altered) == (0, 0, 0, 0), self


class Ledger:
    """Every trade that was sent over HTTP, by what its answers say of it; after Jepsen's `set-full` checker.

    A 200 acknowledges, a 4xx refuses, anything else (a 5xx, a timeout, a cut) leaves it unknown. A trade that is sent
    again keeps the best of its answers.
    """

    def __init__(self) -> None:
        self.acknowledged: set[Identity] = set()
        self.unknown: set[Identity] = set()
        self.refused: set[Identity] = set()
        self.answers: dict[int, int] = {}  # by status; 0: none
        self._contents: dict[Identity, set[tuple[Decimal, Decimal, str]]] = {}

    @property
    def symbols(self) -> list[str]:
        """The tokens that trades were sent for."""
        return sorted({symbol for symbol, _, _ in self._contents})

    async def post(self, client: httpx.AsyncClient, *trades: Trade, **headers: str) -> httpx.Response | None:
        """Send a batch and note its answer; None: there was none."""
        body = {"trades": [trade._asdict() for trade in trades]}
        for trade in trades:
            if identity(trade) not in self.acknowledged:
                self._contents.setdefault(identity(trade), set()).add(content(trade))
        # Unknown from here on: the task that waits for the answer may be cancelled.
        new = {identity(trade) for trade in trades} - self.acknowledged - self.unknown
        self.unknown |= new
        try:
            answer = await client.post("/api/v1/trades", json=body, headers=headers)
        except (httpx.HTTPError, OSError):
            self.answers[0] = self.answers.get(0, 0) + 1
            return None
        self.answers[answer.status_code] = self.answers.get(answer.status_code, 0) + 1
        if answer.status_code == 200:
            assert answer.json()["received"] == len(trades), answer.text
            self._acknowledge(trades)
        elif 400 <= answer.status_code < 500:
            self.unknown -= new
            self.refused |= new
        return answer

    async def persist(self, client: httpx.AsyncClient, *trades: Trade, pause: float = 0.05) -> int:
        """Send a batch until it is acknowledged, as a careful client does; how often it was sent."""
        times = 1
        while (answer := await self.post(client, *trades)) is None or answer.status_code != 200:
            assert answer is None or answer.status_code in {429, 503}, (answer.status_code, answer.text)
            times += 1
            await asyncio.sleep(pause)
        return times

    async def account(self, url: str) -> Account:
        """Compare with what the database at `url` has of these tokens."""
        refused = self.refused - self.acknowledged - self.unknown
        stored: dict[Identity, list[Trade]] = {}
        async with connected(url) as connection:
            for symbol in self.symbols:
                for trade in await stored_trades(connection, symbol):
                    stored.setdefault(identity(trade), []).append(trade)
        known = stored.keys() & self._contents.keys()
        return Account(
            acknowledged=len(self.acknowledged),
            refused=len(refused),
            unknown=len(self.unknown),
            lost=len(self.acknowledged - stored.keys()),
            duplicated=sum(len(trades) - 1 for trades in stored.values()),
            phantom=len(refused & stored.keys()),
            altered=sum(content(stored[one][0]) not in self._contents[one] for one in known),
        )

    def _acknowledge(self, trades: Iterable[Trade]) -> None:
        """From now on none of the trades can get another content."""
        told = {identity(trade) for trade in trades}
        self.acknowledged |= told
        self.unknown -= told


def identity(trade: Trade) -> Identity:
    """What makes it this trade and no other."""
    return trade.symbol, trade.trade_id, trade.time_us


def content(trade: Trade) -> tuple[Decimal, Decimal, str]:
    """What a conflict is about."""
    return Decimal(trade.price), Decimal(trade.amount), trade.side


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection of the test's own."""
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def assert_exact(url: str, client: httpx.AsyncClient, ledger: Ledger, *symbols: str) -> Account:
    """O1 and O2 for all tokens of the ledger and these: the account, which is clean."""
    account = await ledger.account(url)
    account.assert_clean()
    for symbol in sorted({*ledger.symbols, *symbols}):
        await assert_bars(url, client, symbol)
    return account


async def assert_bars(url: str, client: httpx.AsyncClient | None, symbol: str, *made: str) -> int:
    """O2: the bars of a token in SQL, and in REST if a client is given, are the fold of its trades; how many.

    `made` are intervals that are not stored, for REST.
    """
    async with connected(url) as connection:
        trades = await stored_trades(connection, symbol)
        folds = {interval: oracle.fold(trades, interval) for interval in oracle.SECONDS}
        for interval, expected in folds.items():
            assert await bars(connection, symbol, interval) == expected, f"{symbol} {interval} in SQL"
    if client is not None and trades:
        for interval in (*oracle.SECONDS, *made):
            expected = folds.get(interval) or oracle.fold(trades, interval)
            assert await rest_bars(client, symbol, interval) == expected, f"{symbol} {interval} in REST"
    return sum(map(len, folds.values()))


async def rest_bars(client: httpx.AsyncClient, symbol: str, interval: str) -> dict[int, oracle.Bar]:
    """All bars of a token as REST has them, page by page, by open time in epoch microseconds."""
    found: dict[int, oracle.Bar] = {}
    after = 0
    while True:
        query: dict[str, str | int] = {"interval": interval, "from": after, "limit": PAGE}
        answer = await client.get(f"/api/v1/klines/{quote(symbol, safe='')}", params=query)
        assert answer.status_code == 200, answer.text
        rows = answer.json()["klines"]
        page = {row["open_time"] * 1000: _bar(row) for row in rows}
        assert len(page) == len(rows) and not page.keys() & found.keys(), f"{interval}: a bucket appears twice"
        found |= page
        if len(rows) < PAGE:
            return found
        after = rows[-1]["open_time"] + 1


async def taped(url: str, symbol: str) -> list[Trade]:
    """O3: the trades of a token in the order of their commits; the tape must still reach back to the first."""
    async with connected(url) as connection:
        rows = await connection.fetch(TAPED, symbol)
        count = await connection.fetchval(COUNT, symbol)
    assert len(rows) == count, f"{symbol}: {count} trades are stored, {len(rows)} are on the tape"
    return [Trade(symbol, row[0], to_us(row[1]), _text(row[2]), _text(row[3]), row[4]) for row in rows]


class Resources(NamedTuple):
    """O4: open files, TCP connections and memory (bytes) of a process with its children, and database sessions."""

    files: int
    sockets: int
    memory: int
    sessions: int

    @classmethod
    async def of(cls, pid: int, url: str) -> Resources:
        """What a process and its children hold now; PostgreSQL's own processes are not among them."""
        root = psutil.Process(pid)
        ours = [root, *(one for one in root.children(recursive=True) if "postgres" not in one.name())]
        async with connected(url) as connection:
            sessions = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'klines%'"
            )
        return cls(
            files=sum(one.num_fds() for one in ours),
            sockets=sum(len(one.net_connections("tcp")) for one in ours),
            memory=sum(one.memory_info().rss for one in ours),
            sessions=sessions,
        )

    def within(self, before: Resources) -> bool:
        """Whether files, connections and sessions are back where they were."""
        pairs = zip(self._replace(memory=0), before, strict=True)
        return all(now <= then + SPARE for now, then in pairs)


async def assert_released(pid: int, url: str, before: Resources) -> Resources:
    """O4: within a minute the process holds no more than before, but for its memory, which is for figures."""
    held = before

    async def back() -> bool:
        nonlocal held
        held = await Resources.of(pid, url)
        return held.within(before)

    try:
        await poll(back, BASELINE_SECONDS)
    except TimeoutError:
        raise AssertionError(f"still held: {held}, before: {before}") from None
    return held


def assert_quiet(log: str, *secrets: str) -> None:
    """O5: no traceback, and none of these words."""
    assert "Traceback" not in log, log[-4000:]
    assert not [secret for secret in secrets if secret in log], "a secret is in the log"


def _text(number: Decimal) -> str:
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _bar(row: dict[str, Any]) -> oracle.Bar:
    members: dict[str, Any] = {name: row[name] for name in oracle.Bar._fields}
    members |= {name: Decimal(text) for name, text in members.items() if isinstance(text, str)}
    return oracle.Bar(**members)
