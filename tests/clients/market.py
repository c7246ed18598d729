"""The market that clients are shown, and what its database says of it: the truth that their values are compared with.

The tape is always the same: trades of the year 2023 with gaps of seconds to hours. Trades of the last minutes are made
beside it for what looks at the present. The database is read by SQL, past the service; gaps are filled here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from itertools import accumulate, cycle, islice
from typing import Any, NamedTuple

import asyncpg
import httpx
import msgspec

from klines.models import Trade
from tests import oracle
from tests.servers import Database

WIF, TINY, BARE, SCRIPT = "WIFHAT-USDC", "PEPEWEI-USDC", "MOON", "狗狗币-USDC"
SYMBOLS = (WIF, TINY, BARE, SCRIPT)
UNITS = {WIF: "0.0001", TINY: "0.00000000000001", BARE: "1", SCRIPT: "0.01"}
LENGTHS = {WIF: 1700, TINY: 300, BARE: 120, SCRIPT: 120}
BEGIN_MS = 1_700_006_400_000  # 2023-11-15T00:00:00Z, a whole day
MINUTE = 60_000
HOUR = 60 * MINUTE
GAPS_MS = (1_300, 41_000, 2_000, 0, 61_500, 180_250, 700, 95_000, 7_000, 310_000, 12_345, 400)
LONG_GAP_MS = 3 * HOUR


class Bar(NamedTuple):
    """A bar as all dialects know it; `open_time` in epoch milliseconds, decimals as fixed-point text."""

    open_time: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades: int
    buy_volume: str
    buy_quote_volume: str


class Taken(NamedTuple):
    """A stored trade."""

    trade_id: int
    time_us: int
    price: str
    amount: str
    side: str


def tape(symbol: str) -> list[Trade]:
    """The trades of 2023; ids have gaps too."""
    count = LENGTHS[symbol]
    gaps = (LONG_GAP_MS if n % 400 == 399 else gap for n, gap in enumerate(islice(cycle(GAPS_MS), count)))
    return [trade(symbol, 10 + 3 * n, at, n) for n, at in enumerate(accumulate(gaps, initial=BEGIN_MS)) if n < count]


def trade(symbol: str, trade_id: int, time_ms: int, step: int) -> Trade:
    """A trade whose price and amount are those of a step; the tiny token begins at 0.00000000123."""
    price = Decimal(UNITS[symbol]) * (123_000 + step * 37 % 4_111)
    amount = Decimal(step % 17 + 1) / 8
    side: Any = "buy" if step % 3 else "sell"
    return Trade(symbol, trade_id, time_ms * 1000 + step % 12 * 50, plain(price), plain(amount), side)


class Market:
    """A running service with a tape, and its database."""

    def __init__(self, url: str, client: httpx.AsyncClient, connection: asyncpg.Connection[Any]) -> None:
        self.url = url
        self._client = client
        self._connection = connection
        self._steps = 0

    @property
    def socket_url(self) -> str:
        """The same address for WebSockets."""
        return self.url.replace("http", "ws", 1)

    async def post(self, trades: Iterable[Trade]) -> None:
        """Store trades through the service."""
        lines = b"\n".join(msgspec.json.encode(_item(trade)) for trade in trades)
        answer = await self._client.post(
            "/api/v1/trades", content=lines, headers={"Content-Type": "application/x-ndjson"}
        )
        assert answer.status_code == 200, answer.text

    async def trade_now(self, symbol: str, count: int = 1) -> list[Taken]:
        """Trades of this very moment, in one transaction; as they are stored."""
        begin, self._steps = self._steps, self._steps + count
        at = now_ms()
        made = [trade(symbol, 1_000_000 + n, at, n) for n in range(begin, self._steps)]
        await self.post(made)
        return [Taken(*one[1:]) for one in sorted(made, key=lambda one: (one.time_us, one.trade_id))]

    async def trade_lately(self) -> None:
        """Trades of the last minutes, for the 24 hours."""
        now = now_ms()
        lately = ((symbol, n) for symbol in SYMBOLS for n in range(40))
        await self.post(trade(symbol, 900_000 + n, now - (40 - n) * 20_000, n * 5) for symbol, n in lately)

    async def bars(self, symbol: str, interval: str) -> list[Bar]:
        """The stored bars, ascending: of an interval that has no relation, folded from the trades."""
        if interval not in oracle.SECONDS:
            return await self._folded(symbol, interval)
        rows = await self._connection.fetch(
            "SELECT (extract(epoch FROM time) * 1000)::bigint, open, high, low, close, volume, quote_volume,"
            f" trades, buy_volume, buy_quote_volume FROM klines_{interval} JOIN tokens USING (token_id)"
            " WHERE symbol = $1 ORDER BY time",
            symbol,
        )
        return [_bar(row) for row in rows]

    async def trades(self, symbol: str) -> list[Taken]:
        """The stored trades, by time and id."""
        rows = await self._connection.fetch(
            "SELECT trade_id, (extract(epoch FROM time) * 1000000)::bigint, price, amount, side::text"
            " FROM trades JOIN tokens USING (token_id) WHERE symbol = $1 ORDER BY time, trade_id",
            symbol,
        )
        return [Taken(row[0], row[1], plain(row[2]), plain(row[3]), row[4]) for row in rows]

    async def _folded(self, symbol: str, interval: str) -> list[Bar]:
        taken = [Trade(symbol, *one) for one in await self.trades(symbol)]  # type: ignore[arg-type]
        return [_bar([opened // 1000, *bar[:9]]) for opened, bar in oracle.fold(taken, interval).items()]


def dense(bars: Sequence[Bar], interval: str, begin_ms: int, end_ms: int) -> list[Bar]:
    """All bars that open in `[begin_ms, end_ms)` from the first trade on: one without trades is at the last close."""
    width, first = width_ms(interval), bars[0].open_time
    known = {bar.open_time: bar for bar in bars}
    begin_ms = max(first, first - (first - begin_ms) // width * width)
    last = [bar for bar in bars if bar.open_time <= begin_ms][-1]
    found = []
    for open_time in range(begin_ms, end_ms, width):
        last = known.get(open_time) or _flat(open_time, last.close)
        found.append(last)
    return found


def row(bar: Bar, interval: str) -> list[Any]:
    """A bar as Binance writes it."""
    close_time = bar.open_time + width_ms(interval) - 1
    return [*bar[:6], close_time, *bar[6:], "0"]


def width_ms(interval: str) -> int:
    """The width of an interval."""
    return oracle.seconds(interval) * 1000


def now_ms() -> int:
    """The clock."""
    return time.time_ns() // 1_000_000


def plain(number: Decimal) -> str:
    """Fixed-point text without superfluous zeros."""
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


async def connect(database: Database) -> asyncpg.Connection[Any]:
    """A connection of the tests' own."""
    return await asyncpg.connect(database.url)


def _bar(values: Iterable[Any]) -> Bar:
    shown: list[Any] = [plain(one) if isinstance(one, Decimal) else one for one in values]
    return Bar(*shown)


def _flat(open_time: int, close: str) -> Bar:
    return Bar(open_time, close, close, close, close, "0", "0", 0, "0", "0")


def _item(trade: Trade) -> dict[str, Any]:
    return trade._asdict()
