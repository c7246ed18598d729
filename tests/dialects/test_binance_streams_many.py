"""Many streams on one connection, and streams that end or lie ahead while a client subscribes."""

from __future__ import annotations

import asyncio
import time
from typing import Any, cast

import httpx
import pytest

from klines.hub import Hub
from klines.interval import Width
from klines.models import Trade
from klines.web.binance.streams.batch import Watchers
from klines.web.binance.streams.dense import Dense
from klines.web.binance.streams.market import Claim
from klines.web.binance.streams.native import Bar
from klines.web.binance.streams.session import Session
from tests.dialects.binance_streams import joined

TOKENS = 1000
AT_ONCE = 100
# Not promised: a machine that is busy with other tests takes several times as long as one that is not.
PATIENCE = 90.0


@pytest.fixture
async def crowd(plain_client: httpx.AsyncClient) -> list[str]:
    """Tokens that were traded once."""
    now_us = time.time_ns() // 1_000_000_000 * 1_000_000
    names = [f"T{number:04}" for number in range(TOKENS)]
    trades = [Trade(name, 1, now_us, "0.000012345", "1000", "buy")._asdict() for name in names]
    answer = await plain_client.post("/api/v1/trades", json={"trades": trades})
    assert answer.json()["inserted"] == TOKENS
    return names


async def test_a_connection_with_a_thousand_quiet_streams_outlives_the_end_of_their_buckets(
    plain_client: httpx.AsyncClient, crowd: list[str]
) -> None:
    async with joined(plain_client, "/stream") as client:
        # In parts: the service gives each request a time to open all of its streams in.
        for first in range(0, TOKENS, AT_ONCE):
            part = crowd[first : first + AT_ONCE]
            await client.subscribe(*(f"{name.lower()}@kline_1s" for name in part), deadline=PATIENCE)
        # Without a gap, each closed once: the client itself looks after that.
        await client.until(lambda: len(client.closed) == TOKENS, PATIENCE)
        await client.until(lambda: min(map(len, client.closed.values())) >= 3, PATIENCE)


def bar(opened: int) -> Bar:
    return Bar(opened, opened + 999, "1", "1", "1", "1", "1", "1", 1, "1", "1", opened, opened)


def test_bars_ahead_of_the_clock_wait_for_their_buckets() -> None:
    dense = Dense(Width(1))
    dense.begin([bar(20_000), bar(21_000)], 10_500)
    assert dense.present() is None
    assert dense.take(None, 19_999) == []
    assert [(told.bar.open_time, told.closed) for told in dense.take(None, 20_100)] == [(20_000, False)]
    told = dense.take(bar(10_000), 21_300)
    assert [(one.bar.open_time, one.closed) for one in told] == [(20_000, True), (21_000, False)]


def test_the_first_bar_may_lie_ahead_of_the_clock() -> None:
    dense = Dense(Width(1))
    assert dense.take(bar(20_000), 10_500) == []
    assert [told.bar.open_time for told in dense.take(bar(10_000), 10_600)] == [10_000]
    assert [told.bar.open_time for told in dense.take(None, 12_000)] == [10_000, 11_000]


class Ended:
    """The end of a connection, as far as a session needs one."""

    def __init__(self) -> None:
        self.code: int | None = None

    def close(self, code: int, reason: str) -> None:
        self.code = code


class Gone:
    """A source that was given up."""

    left = True


async def test_a_stream_that_was_given_up_while_others_opened_ends_the_connection() -> None:
    class Market:
        hub = Hub()

        async def claim(self, name: object) -> Claim:
            return Claim("kline", Watchers(), cast(Any, Gone()))

        def release(self, claim: Claim) -> None:
            pass

    connection = Ended()
    session = Session(cast(Any, Market()), cast(Any, connection), free, combined=False, per_ms=1)
    session.join(await session.claim(["pepe@kline_1s"]))
    assert connection.code == 1012
    session.leave()


def free(cost: int) -> None:
    """Weighs nothing."""


async def test_a_subscription_lasts_as_long_as_streams_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("klines.web.binance.streams.session.OPEN_SECONDS", 0.3)
    opened: list[object] = []

    class Market:
        hub = Hub()

        async def claim(self, name: object) -> Claim:
            # Each takes a part of the time that all of them together may go without one.
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await asyncio.Event().wait()
            opened.append(name)
            return Claim("ticker", Watchers(), None)

        def release(self, claim: Claim) -> None:
            pass

    session = Session(cast(Any, Market()), cast(Any, Ended()), free, combined=False, per_ms=1)
    await session.claim([f"t{number}@ticker" for number in range(24)])
    assert len(opened) == 24
    session.leave()
