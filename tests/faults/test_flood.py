"""F48 at full speed: notifications by the million, of which the service takes some thousands.

Whoever may connect may notify. The service drops the connection that is flooded and lives by its poll for a while.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import httpx
import pytest

from klines.flood import MAX_CHARACTERS, MAX_FOREIGN, MAX_NOTIFICATIONS, MOST_SECONDS, Allowance, Deafness
from tests.faults.oracles import connected
from tests.live.streams import post, transactions
from tests.live.test_transactions import told, trade
from tests.servers import Database
from tests.service.processes import service

FLOOD_SECONDS = 2.0
PROMPT = 1.5
TOLD_SECONDS = 5.0
FLOOD = "SELECT count(pg_notify('klines_v1', $1 || n)) FROM generate_series(1, 20000) AS n"


async def flood(connection: asyncpg.Connection[Any], until: float) -> int:
    """Ring without end; how often."""
    rings = 0
    while time.monotonic() < until:
        await connection.fetchval(FLOOD, "x")
        rings += 20_000
    return rings


async def slowest(client: httpx.AsyncClient, ringing: asyncio.Task[int]) -> float:
    """The longest that the process took to say that it lives, while it rings."""
    longest = 0.0
    while not ringing.done():
        begun = time.monotonic()
        assert (await client.get("/health/live")).status_code == 200
        longest = max(longest, time.monotonic() - begun)
    return longest


@pytest.mark.fault("F48")
async def test_a_flood_of_nonsense_holds_up_neither_the_service_nor_its_streams(
    plain: Database, figures: Callable[..., None]
) -> None:
    with service(DATABASE_URL=plain.url) as one:
        url = await asyncio.to_thread(one.url)
        async with httpx.AsyncClient(base_url=url, timeout=30) as client, connected(plain.url) as ringer:
            await post(client, trade(1))
            async with transactions(client) as stream:
                ringing = asyncio.create_task(flood(ringer, time.monotonic() + FLOOD_SECONDS))
                answering = asyncio.create_task(slowest(client, ringing))
                await asyncio.to_thread(one.wait_for, lambda line: "in a second" in line)
                # Nobody listens now, and the next one who does is flooded, too.
                await post(client, trade(2))
                committed = time.monotonic()
                await stream.until(lambda log: bool(log.trades), deadline=TOLD_SECONDS)
                told_s = time.monotonic() - committed
                rings, live_s = await ringing, await answering
                assert rings > 10 * MAX_NOTIFICATIONS
                assert live_s < PROMPT
                await post(client, trade(3))
                await told(stream, trade(2), trade(3))
                assert (await client.get("/health/ready")).json()["codes"] == []
        assert one.stop() == 0
    assert "the streams are stale" not in one.log
    assert one.log.count("not ours; ignored") <= 1
    figures("F48", rings_per_s=rings / FLOOD_SECONDS, live_max_s=live_s, told_s=told_s, lost=0, duplicated=0)


class Clock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("most", "characters"), [(MAX_NOTIFICATIONS, 4), (MAX_CHARACTERS // 4096, 4096)])
def test_a_second_may_bring_so_much(most: int, characters: int) -> None:
    clock = Clock()
    allowance = Allowance(clock)
    for _ in range(3):
        assert all(allowance.take(characters) for _ in range(most))
        clock.now += 1
    assert all(allowance.take(characters) for _ in range(most))
    assert not allowance.take(characters)
    clock.now += 1
    assert not allowance.take(characters), "what was flooded is not believed again"


def test_what_is_not_ours_may_be_less() -> None:
    allowance = Allowance(Clock())
    assert all(allowance.take(1) and allowance.take_foreign() for _ in range(MAX_FOREIGN))
    assert allowance.take(1)
    assert not allowance.take_foreign()


def test_floods_that_follow_one_another_are_listened_to_ever_less_often() -> None:
    deafness = Deafness()
    assert [deafness.after(5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert deafness.after(MOST_SECONDS) == 1
