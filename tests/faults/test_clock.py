"""F41, F43: the service's own clock jumps by an hour, and days roll by it. Bars go by the times of the trades alone.

The clock is libfaketime's (Debian's package `faketime`), preloaded into the service's process and read from a file; the
monotonic clock stays. PostgreSQL keeps the true time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

import httpx
import pytest

from klines.models import Trade
from klines.timestamp import to_us
from tests import oracle
from tests.faults.load import posting, register
from tests.faults.oracles import Ledger, assert_bars, assert_exact, assert_quiet, taped
from tests.live.followers import Follower, following
from tests.live.streams import Chart, Tape, wire
from tests.servers import Database
from tests.service.processes import Service, service

SYMBOL = "PEPE"
HOUR = 3600.0
US = 1_000_000
AHEAD_SECONDS = 2.0
LIBRARY = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
ROLLS = ("2024-03-01", "2024-01-01")

pytestmark = pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian: faketime)")


class Clock:
    """The wall clock of one service."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.offset = 0.0
        self.set(0.0)

    def set(self, offset: float) -> None:
        """Run this many seconds ahead of the true time from now on."""
        self.offset = offset
        self._file.write_text(f"{offset:+.3f}\n")

    def show(self, moment: float) -> None:
        """Show this time, in epoch seconds, now."""
        self.set(moment - time.time())

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process go by it."""
        return {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        }


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    return Clock(tmp_path / "clock")


@asynccontextmanager
async def clocked(database: Database, clock: Clock) -> AsyncIterator[tuple[Service, str]]:
    """A service that goes by a clock."""
    with service(DATABASE_URL=database.url, **clock.environment) as one:
        yield one, await asyncio.to_thread(one.url)


async def server_time(url: str) -> float:
    """What the service believes the time is, in epoch seconds."""
    async with httpx.AsyncClient(base_url=url) as client:
        shown: int = (await client.get("/api/v3/time")).json()["serverTime"]
        return shown / 1000


@pytest.mark.slow
@pytest.mark.fault("F41")
async def test_a_clock_that_jumps_by_an_hour_moves_no_trade(
    plain: Database, clock: Clock, figures: Callable[..., None]
) -> None:
    async with (
        clocked(plain, clock) as (one, url),
        posting(url, SYMBOL) as load,
        following(url, f"/ws/transactions/{SYMBOL}", Tape()) as trades,
    ):
        bars = Follower(url, f"/ws/klines/{SYMBOL}/1m", Chart("1m", quiet=True, grace_ms=-7_200_000), history=1000)
        load.begin()
        await load.more(20)
        clock.set(HOUR)
        assert abs(await server_time(url) - time.time() - HOUR) < 5
        await load.more(20)
        ahead = len(trades.codes) + len(bars.codes)
        await load.end()
        await assert_exact(plain.url, load.client, load.ledger)
        expected = oracle.fold(await taped(plain.url, SYMBOL), "1m")
        await bars.until(lambda log: log.oracle_bars() == expected)
        await bars.leave()
        clock.set(-HOUR)
        early = load.trade()
        refused = await load.ledger.post(load.client, early)
        assert refused is not None and refused.status_code == 422
        for _ in range(20):
            await load.ledger.persist(load.client, *(load.trade(seconds_ago=HOUR) for _ in range(3)))
        account = await assert_exact(plain.url, load.client, load.ledger)
        tape = await taped(plain.url, SYMBOL)
        await trades.until(lambda log: len(log.trades) >= len(tape))
        assert trades.log.trades == wire(*tape)
        behind = len(trades.codes)
    assert ahead == 0, "a clock that runs ahead disconnected somebody"
    assert set(trades.codes) <= {1012}
    assert_quiet(one.log)
    figures("F41", disconnects_ahead=ahead, disconnects_back=behind, refused=account.refused, **account.figures, gaps=0)


@pytest.mark.slow
@pytest.mark.fault("F43")
@pytest.mark.parametrize("day", ROLLS)
async def test_bars_close_once_when_the_day_rolls(
    plain: Database, clock: Clock, day: str, figures: Callable[..., None]
) -> None:
    midnight_us = to_us(datetime.fromisoformat(f"{day}T00:00:00+00:00"))
    times = [midnight_us - 86_400 * US, midnight_us - 60 * US, midnight_us - 1]
    before = [Trade(SYMBOL, number, at, f"1.{number}1", "2.5", "buy") for number, at in enumerate(times)]
    after = Trade(SYMBOL, 10, midnight_us, "3", "1", "sell")
    clock.show(midnight_us / US - 2 * HOUR)
    async with clocked(plain, clock) as (one, url), httpx.AsyncClient(base_url=url) as client:
        ledger = Ledger()
        await register(client, SYMBOL)
        clock.show(midnight_us / US - AHEAD_SECONDS)
        async with charts(url, "1d", "1m", "1s") as followers:
            await ledger.persist(client, *before)
            for follower in followers:
                last_ms = oracle.opens(follower.log.interval, midnight_us - 1) // 1000
                await follower.until(lambda log, last_ms=last_ms: last_ms in log.closings)  # type: ignore[misc]
            assert await server_time(url) >= midnight_us / US
            await ledger.persist(client, after)
            expected = [oracle.fold([*before, after], follower.log.interval) for follower in followers]
            for follower, bars in zip(followers, expected, strict=True):
                await follower.until(lambda log, bars=bars: log.oracle_bars() == bars)  # type: ignore[misc]
            twice = sum(len(one.log.closings) - len({*one.log.closings}) for one in followers)
            assert twice == 0
            account = await assert_exact(plain.url, client, ledger)
            assert await assert_bars(plain.url, client, SYMBOL, "1w", "36h")
    assert_quiet(one.log)
    figures("F43", day=day, **account.figures, closed_twice=twice, gaps=0)


@asynccontextmanager
async def charts(url: str, *intervals: str) -> AsyncIterator[list[Follower[Chart]]]:
    """Followers of bars."""
    followers = [Follower(url, f"/ws/klines/{SYMBOL}/{one}", Chart(one), history=1000) for one in intervals]
    for follower in followers:
        await follower.until(lambda _, one=follower: bool(one.heard))  # type: ignore[misc]
    yield followers
    for follower in followers:
        await follower.leave()
