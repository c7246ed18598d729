"""What opening a stream must not do to others, and a database or a clock that goes back not to a stream."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from klines.models import Trade
from klines.relay import relay
from klines.relay.messages import now_ms
from tests.application import serving, settings_for
from tests.live.proxy import Proxy, through, upstream_of
from tests.live.streams import post
from tests.servers import Database, Server

DEADLINE = 20


def trade(number: int, time_ms: int, symbol: str = "PEPE") -> Trade:
    return Trade(symbol, number, time_ms * 1000, "0.5", "2", "buy")


def opened(url: str, path: str, **query: object) -> connect:
    told = "&".join(f"{name}={quote(str(value))}" for name, value in query.items())
    return connect(f"{url.replace('http', 'ws', 1)}{path}?{told}", proxy=None, max_size=None, compression=None)


async def heard(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(DEADLINE):
        return dict(json.loads(await socket.recv()))


async def test_slow_openings_leave_the_other_streams_alone(plain: Database, caplog: pytest.LogCaptureFixture) -> None:
    with Proxy(upstream_of(plain.url)) as proxy:
        slow = settings_for(plain, database_url=through(proxy, plain.url))
        async with serving(slow) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
            await post(client, trade(1, now_ms()))
            async with opened(url, "/ws/transactions/PEPE") as watcher:
                await heard(watcher)
                proxy.delay(0.03)

                async def opens(history: int) -> int:
                    try:
                        async with opened(url, "/ws/transactions/PEPE", history=history) as socket:
                            return len((await heard(socket))["trades"])
                    except InvalidStatus as refused:
                        assert refused.response.status_code == 503
                        return 0

                shown = await asyncio.gather(*(opens(history) for history in range(1, 15)))
                assert any(shown)
                proxy.restore()
                await post(client, trade(2, now_ms()))
                while (message := await heard(watcher))["type"] != "trades":
                    assert message.get("feed") != "stale", "others are told that the database is away"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_numbers_that_are_given_out_again_are_not_continued(plain: Database, server: Server) -> None:
    with server.database("plain") as before:
        async with serving(settings_for(before)) as url, httpx.AsyncClient(base_url=url) as client:
            await post(client, *(trade(number, 1_700_000_000_000) for number in range(50)))
            async with opened(url, "/ws/transactions/PEPE") as socket:
                cursor = (await heard(socket))["cursor"]
    # A copy of the same beginning that went another way, and further.
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        await post(client, *(trade(number, 1_700_000_000_000) for number in range(1000, 1060)))
        async with opened(url, "/ws/transactions/PEPE", cursor=cursor) as socket:
            assert (await heard(socket))["recovered"] is False


async def test_what_was_known_of_another_database_is_forgotten(plain: Database, server: Server) -> None:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
        await post(client, trade(1, 1_700_000_000_000, "AAA"))
        async with opened(url, "/ws/transactions/AAA") as socket:
            await heard(socket)
            server.execute(f"DROP DATABASE {plain.name} WITH (FORCE)")
            server.execute(f"CREATE DATABASE {plain.name} TEMPLATE {server.templates['plain']}")
            # Its streams begin anew, and with that everything else is forgotten.
            with pytest.raises(ConnectionClosed) as ended:
                while True:
                    await heard(socket)
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == 1012
        await post(client, trade(1, 1_700_000_000_000, "BBB"))
        await post(client, trade(2, 1_700_000_000_000, "AAA"))
        for symbol, number in (("BBB", 1), ("AAA", 2)):
            trades = (await client.get(f"/api/v1/trades/{symbol}")).json()["trades"]
            assert [one["trade_id"] for one in trades] == [number]


async def test_a_clock_that_went_ahead_and_came_back_does_not_keep_bars_closed(
    plain: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead_ms = 0
    monkeypatch.setattr(relay, "now_ms", lambda: now_ms() + ahead_ms)
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        await post(client, trade(1, now_ms()))
        async with opened(url, "/ws/klines/PEPE/1d") as socket:
            assert (await heard(socket))["klines"][0]["closed"] is False
            ahead_ms = 2 * 86_400_000
            while not (message := await heard(socket)).get("kline", {}).get("closed"):
                pass
            ahead_ms = 0
            with pytest.raises(ConnectionClosed) as ended:
                while True:
                    await heard(socket)
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == 1012
        async with opened(url, "/ws/klines/PEPE/1d", cursor=message["cursor"]) as socket:
            snapshot = await heard(socket)
            assert (snapshot["recovered"], snapshot["klines"][0]["closed"]) == (False, False)


async def test_an_hour_of_ended_bars_comes_in_order_and_once(plain: Database) -> None:
    begin_ms = (now_ms() // 1000 - 3000) * 1000
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
        await post(client, *(trade(number, begin_ms + number * 1000) for number in range(2900)))
        async with opened(url, "/ws/klines/PEPE/1s") as socket:
            epoch, token, sequence, seconds, _, ahead = (await heard(socket))["cursor"].split(".")
        # As if nobody had been told of a bar's end since.
        cursor = ".".join((epoch, token, sequence, seconds, str(begin_ms), ahead))
        async with opened(url, "/ws/klines/PEPE/1s", cursor=cursor, history=0) as socket:
            assert (await heard(socket))["recovered"] is True
            told = [await heard(socket) for _ in range(2900)]
            assert [one["kline"]["open_time"] for one in told] == [begin_ms + number * 1000 for number in range(2900)]
            assert all(one["type"] == "kline" and one["kline"]["closed"] for one in told)
            late = trade(5000, begin_ms)
            await post(client, late)
            message = await heard(socket)
            assert (message["type"], message["kline"]["trades"]) == ("revision", 2)
            cursors = [told[0]["cursor"], told[1234]["cursor"], told[-1]["cursor"]]
        for cursor, left in zip(cursors, (2899, 1665, 0), strict=True):
            async with opened(url, "/ws/klines/PEPE/1s", cursor=cursor, history=0) as socket:
                await heard(socket)
                rest = [await heard(socket) for _ in range(left + 1)]
                closings = [one for one in rest if one["type"] == "kline"]
                assert len(closings) == left
                assert sum(one["type"] == "revision" for one in rest) == 1


async def test_many_at_once_are_all_answered(plain: Database) -> None:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        await post(client, *(trade(number, 1_700_000_000_000 + number * 1000) for number in range(200)))

        async def opens(number: int) -> float:
            """Until there is a snapshot; the longest wait for an answer."""
            path = ("/ws/transactions/PEPE", "/ws/klines/PEPE/1s", "/ws/klines/PEPE/1m")[number % 3]
            longest = 0.0
            while True:
                begun = time.monotonic()
                try:
                    async with opened(url, path, history=number) as socket:
                        assert (await heard(socket))["type"] == "snapshot"
                        return max(longest, time.monotonic() - begun)
                except InvalidStatus as refused:
                    # On a machine that is busy with other tests its turn may not come in time.
                    assert json.loads(refused.response.body or b"")["code"] == "database_busy"
                    longest = max(longest, time.monotonic() - begun)

        async with asyncio.timeout(3 * DEADLINE):
            waits = await asyncio.gather(*(opens(number) for number in range(150)))
        assert max(waits) < DEADLINE


async def test_refusals_do_not_flood_the_log(plain: Database, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(settings_for(plain, max_connections=0)) as url:
        for _ in range(20):
            with pytest.raises(InvalidStatus):
                async with opened(url, "/ws/transactions/PEPE"):
                    pass
    said = [record for record in caplog.records if "connections" in record.message and record.levelno >= logging.INFO]
    assert len(said) <= 1
