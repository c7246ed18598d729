"""From the moment that a statement is sent to the frame at a client, beside a bare NOTIFY to a listener's callback.

The bare ones insert by the same statement into a table of the same columns and index, which has no triggers, and
notify in it. One of each pair writes a trade per commit for one client; the other 20 trades of 50 tokens for 200.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import NamedTuple

import asyncpg

from bench.comparison import Figures, Outcome, Ratio, Sample, rounds, spread
from bench.live.clients import Clients
from bench.live.figures import Case, medians, quantiles, rounded
from bench.live.setting import BARS, SYMBOLS, TRADES, Market, market, seconds_of
from bench.live.writer import columns
from bench.load import cpu_seconds
from bench.stage import Service, Stage
from klines.writer import INSERT_NEW, array_text

TOKENS = 50
PER_TOKEN = 4
BATCH = 20
PERIOD = 0.02
SECONDS = 4.0
LATE_SECONDS = 0.3
FLOOR, GOAL = 5, 2

BARE = """
    CREATE TABLE bench_trades (LIKE public.trades INCLUDING DEFAULTS);
    CREATE UNIQUE INDEX ON bench_trades (token_id, time, trade_id);
"""
NOTE = f"WITH stored AS ({INSERT_NEW.replace('public.trades', 'bench_trades')}) SELECT pg_notify('bench', $7)"

Window = Callable[[], Awaitable[tuple[Case, dict[str, float]]]]


class Way(NamedTuple):
    """Clients of a service, so many each of some tokens, by their places; nobody else is told of them."""

    market: Market
    service: Service
    clients: Clients
    tokens: range
    clients_of_token: int
    batch: int

    async def window(self) -> tuple[Case, dict[str, float]]:
        """Milliseconds from sending and from the return of a commit to each client, and CPU seconds."""
        writer, stage = self.market.writer, self.market.stage
        batches = [self._places(number) for number in range(round(seconds_of(stage, SECONDS) / PERIOD))]
        before = [cpu_seconds(self.service.process), cpu_seconds(stage.postmaster)]
        self.clients.begin(keeps=True)
        await writer.paced(batches, PERIOD)
        await asyncio.sleep(LATE_SECONDS)
        after = [cpu_seconds(self.service.process), cpu_seconds(stage.postmaster)]
        got = self.clients.end()
        # Clients of bars also tell of trades that no window has seen.
        pairs = zip(got.arrivals[::2], got.arrivals[1::2], strict=True)
        told = [(at, trade) for at, trade in pairs if trade in writer.committed]
        if (missing := self.clients_of_token * len(writer.committed) - len(told)) or got.ended:
            raise RuntimeError(f"{missing} trades did not arrive, {got.ended} connections ended")
        figures = _told(told, writer.sent, writer.committed)
        return figures, {"service": after[0] - before[0], "postgresql": after[1] - before[1], "clients": got.cpu}

    def _places(self, number: int) -> list[int]:
        first = number * self.batch
        return [self.tokens[place % len(self.tokens)] for place in range(first, first + self.batch)]


def _told(heard: Sequence[tuple[int, int]], sent: dict[int, int], committed: dict[int, int]) -> Case:
    after = quantiles((at - committed[number] for at, number in heard), "after_commit_")
    return quantiles(at - sent[number] for at, number in heard) | after


class Bare(NamedTuple):
    """A listener's callback, and the connection that notifies it."""

    market: Market
    rung: dict[int, int]
    batch: int

    async def window(self) -> tuple[Case, dict[str, float]]:
        """The same of notifications."""
        stage, connection = self.market.stage, self.market.writer.connection
        statement = await connection.prepare(NOTE)
        sent: dict[int, int] = {}
        committed: dict[int, int] = {}
        self.rung.clear()
        before, began = cpu_seconds(stage.postmaster), time.monotonic()
        for number in range(round(seconds_of(stage, SECONDS) / PERIOD)):
            await asyncio.sleep(began + number * PERIOD - time.monotonic())
            tokens, trades = map(str, range(self.batch)), [str(time.monotonic_ns())] * self.batch
            sent[number] = time.monotonic_ns()
            await statement.fetch(array_text(tokens), array_text(trades), *columns(self.batch, "1.5"), str(number))
            committed[number] = time.monotonic_ns()
        await asyncio.sleep(LATE_SECONDS)
        figures = _told([(self.rung[number], number) for number in sent], sent, committed)
        return figures, {"postgresql": cpu_seconds(stage.postmaster) - before}


@asynccontextmanager
async def _listening(place: Market) -> AsyncIterator[dict[int, int]]:
    """When the notification of a number was heard."""
    rung: dict[int, int] = {}

    def ring(_connection: object, _pid: int, _channel: str, payload: object) -> None:
        rung[int(str(payload))] = time.monotonic_ns()

    await place.writer.connection.execute(BARE)
    listening = await asyncpg.connect(place.url)
    try:
        await listening.add_listener("bench", ring)
        yield rung
    finally:
        await listening.close()


async def measure(stage: Stage) -> Outcome:
    """Medians of the rounds' quantiles; the ratios are of p50 from sending."""
    figures: dict[str, list[Case]] = {}

    async def side(name: str, window: Window) -> Sample:
        told, cpu = await window()
        figures.setdefault(name, []).append(told)
        return Sample(1, told["p50_ms"] / 1000, cpu)

    async with AsyncExitStack() as stack:
        windows = await _windows(stage, stack)
        found = await rounds({name: partial(side, name, one) for name, one in windows.items()}, stage.size.runs)
    # In the order in which they were named, without the round that warms up.
    counted = {name: figures[name][-stage.size.runs :] for name in windows}
    told = [_case(name, rows, found[name]) for name, rows in counted.items()]
    equal = "every trade of every commit arrived once at each client of its token"
    return Outcome(told, list(_ratios(counted)), equal)


async def _windows(stage: Stage, stack: AsyncExitStack) -> dict[str, Window]:
    place = await stack.enter_async_context(market(stage))
    rung = await stack.enter_async_context(_listening(place))
    windows: dict[str, Window] = {
        "NOTIFY, 1 row": Bare(place, rung, 1).window,
        f"NOTIFY, {BATCH} rows": Bare(place, rung, BATCH).window,
    }
    service, clients = stack.enter_context(place.serving())
    free = 0
    for name, path in (("bars", BARS), ("trades", TRADES)):
        for count, clients_each, batch in ((1, 1, 1), (TOKENS, stage.size.of(PER_TOKEN), BATCH)):
            tokens, free = range(free, free + count), free + count
            clients.open([path.format(SYMBOLS[number]) for number in tokens] * clients_each)
            told = "1 client at rest" if batch == 1 else f"{TOKENS * clients_each} clients, {BATCH / PERIOD:g} trades/s"
            windows[f"{name}, {told}"] = Way(place, service, clients, tokens, clients_each, batch).window
    return windows


def _case(name: str, rows: Sequence[Case], samples: Sequence[Sample]) -> Figures:
    cores = {whose: spread([one.cpu[whose] / SECONDS for one in samples])["median"] for whose in samples[0].cpu}
    return {"case": name, **rounded(medians(rows)), "cores": cores}


def _ratios(figures: dict[str, list[Case]]) -> Iterator[Ratio]:
    one, many = (name for name in figures if name.startswith("NOTIFY"))
    for name, rows in figures.items():
        if name in {one, many}:
            continue
        theirs = one if "rest" in name else many
        for figure in ("p50_ms", "p99_ms"):
            values = [ours[figure] / bare[figure] for ours, bare in zip(rows, figures[theirs], strict=True)]
            floor, goal = (FLOOR, GOAL) if figure == "p50_ms" else (None, None)
            yield Ratio(f"{figure}: {name} / {theirs}", values, floor, goal, more=False)
