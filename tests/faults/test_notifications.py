"""F47, F48: somebody who listens and never takes anything, and somebody who rings without end.

PostgreSQL keeps a notification until every session that listens has taken it, and refuses to commit when its queue is
full; anyone who may connect may ring. Here the queue is 1/16,384 of its ordinary 8 GB, so that it fills in a moment.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import psutil
import pytest

from tests.application import serving, settings_for
from tests.faults.load import Load, assert_held, posting, watching
from tests.faults.oracles import connected, taped
from tests.live.followers import poll
from tests.live.power import powered
from tests.servers import Database
from tests.service.processes import service

SYMBOLS = ("PEPE", "WIF")
CHANNEL = "klines_v1"
PAGES = 64
PAYLOAD = 7000
FLOOD_SECONDS = 2.0
USAGE = "SELECT pg_notification_queue_usage()"
# PostgreSQL sends equal notifications of one transaction once.
FORGE = "SELECT pg_notify($1, $2 || n) FROM generate_series(1, 200) AS n"


@pytest.fixture
async def small() -> AsyncIterator[Database]:
    """A database on a server with a small queue of notifications."""
    async with powered(max_notify_queue_pages=str(PAGES)) as (_, database):
        yield database


@pytest.mark.slow
@pytest.mark.fault("F47")
async def test_who_listens_and_takes_nothing_blocks_nobody_until_the_queue_is_full(
    small: Database, figures: Callable[..., None]
) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings_for(small)))
        load = await stack.enter_async_context(posting(url, *SYMBOLS))
        pairs = await stack.enter_async_context(watching(url, SYMBOLS))
        load.begin()
        await load.more(5)
        idle = await stack.enter_async_context(connected(small.url))
        await idle.execute(f"LISTEN {CHANNEL}")
        await idle.execute("BEGIN")
        await load.more(20)
        for pair in pairs.values():
            await pair.has(len(pair.trades.log.trades) + 20)
        assert load.ledger.answers.keys() == {200}
        usage = await fill(await stack.enter_async_context(connected(small.url)))
        # A commit that cannot ring is refused as one that may be tried again, and nothing of it is stored.
        await poll(lambda: answered(load, 503))
        ready = await load.client.get("/health/ready")
        assert "notify_queue_full" in ready.json()["codes"]
        await idle.execute("ROLLBACK")
        freed = time.monotonic()
        rto = await load.back(freed)
        account = await assert_held(small.url, load, pairs)
        assert load.ledger.answers.keys() == {200, 503}
    told = {"usage": usage, "refused": load.ledger.answers[503], "ready": ready.status_code, "rto_s": rto}
    figures("F47", **told, **account.figures, gaps=0)


async def fill(connection: asyncpg.Connection[Any]) -> float:
    """Ring, to no avail, until the queue is full; how full it says it is."""
    number = 0
    while True:
        number += 1
        try:
            await connection.execute("SELECT pg_notify('nobody', $1)", f"{number}:{'x' * PAYLOAD}")
        except asyncpg.ProgramLimitExceededError:
            usage: float = await connection.fetchval(USAGE)
            return usage


async def answered(load: Load, status: int) -> bool:
    """Whether a request was answered so."""
    return status in load.ledger.answers


@pytest.mark.slow
@pytest.mark.fault("F48")
async def test_a_flood_of_forged_notifications_changes_nothing_and_costs_little(
    plain: Database, figures: Callable[..., None]
) -> None:
    with service(DATABASE_URL=plain.url) as one:
        url = await asyncio.to_thread(one.url)
        process = psutil.Process(one.process.pid)
        async with posting(url, *SYMBOLS) as load, watching(url, SYMBOLS) as pairs, connected(plain.url) as ringer:
            load.begin(1, pause_s=0.05)
            await load.more(5)
            begun, spent = time.monotonic(), sum(process.cpu_times()[:2])
            rings = 0
            while time.monotonic() < begun + FLOOD_SECONDS:
                await ringer.execute(FORGE, CHANNEL, chr(ord("1") + rings // 200 % 9))
                rings += 200
            cpu = sum(process.cpu_times()[:2]) - spent
            took = time.monotonic() - begun
            ended, before = time.monotonic(), process.memory_info().rss
            answered_in = await load.back(ended)
            tape = {symbol: await taped(plain.url, symbol) for symbol in SYMBOLS}
            for symbol, pair in pairs.items():
                await pair.has(len(tape[symbol]))
            told_in = time.monotonic() - ended
            account = await assert_held(plain.url, load, pairs)
            for pair in pairs.values():
                pair.stayed()
    told = {"rings_per_s": rings / took, "cpu_share": cpu / took, "cpu_us_per_ring": cpu / rings * 1e6}
    told |= {"post_s": answered_in, "told_s": told_in, "rss_mib": before / 2**20}
    figures("F48", **told, **account.figures, gaps=0)
