"""What an operator sees of a process whose event loop is blocked: the lag is measured, and nothing is dropped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import httpx
import pytest

from tests.application import serving, settings_for
from tests.observe.scrape import scrape
from tests.observe.test_metrics import stream, trades, until
from tests.servers import Database

BLOCKED = 0.7


@pytest.mark.fault("F29")
async def test_a_blocked_event_loop_shows_and_drops_nothing(plain: Database, figures: Callable[..., None]) -> None:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post("/api/v1/trades", json=trades(1))
        async with stream(url, "/ws/transactions/PEPE-SOL") as socket:
            before = await scrape(client)
            assert before.value("klines_event_loop_lag_seconds_bucket", le="0.5") == before.value(
                "klines_event_loop_lag_seconds_count"
            )
            posted = asyncio.create_task(client.post("/api/v1/trades", json=trades(*range(2, 102))))
            await asyncio.sleep(0)
            time.sleep(BLOCKED)  # noqa: ASYNC251 - the fault
            began = time.perf_counter()
            assert (await posted).json()["inserted"] == 100
            seen = 0
            while seen < 100:
                seen += str(await socket.recv()).count('"trade_id"')
            recovery = time.perf_counter() - began
        after = await scrape(client)
        late = after.value("klines_event_loop_lag_seconds_count") - after.value(
            "klines_event_loop_lag_seconds_bucket", le="0.25"
        )
        assert late == 1
        worst = after.value("klines_event_loop_lag_seconds_sum")
        assert worst > BLOCKED - 0.3
        closed = await until(client, "klines_connections", 0)
        assert closed.value("klines_connection_closes_total", code="1000") == 1, "nobody was cut off for it"
    figures("F29", blocked_s=BLOCKED, lag_s=worst, recovery_s=recovery, dropped=100 - seen)
