"""What holds back: the room for trades on their way in, the time of an answer, and places for dear reads."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial

import asyncpg
import httpx
import pytest
from litestar import Litestar, get
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from klines.database import connected, translated
from klines.dear import Dear, connections
from klines.dsn import split
from klines.errors import Unavailable
from klines.models import TradeColumns
from klines.trade_input import trades_of_ndjson
from klines.trade_rules import TradeRules
from klines.web.admission import deadline
from klines.web.admission.deadline import in_time
from klines.web.admission.intake import Intake
from tests.application import serving, serving_app, settings_for
from tests.faults.oracles import connected as psql
from tests.live.followers import poll
from tests.live.proxy import Proxy, through, upstream_of
from tests.servers import Database

LOCK = "LOCK TABLE klines_internal.live_klines, trades IN ACCESS EXCLUSIVE MODE"
BLOCKED = (
    "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = $1)"
)
WRITING = """
    SELECT count(*) FROM pg_locks
    WHERE NOT granted AND relation = 'public.trades'::regclass AND mode = 'RowExclusiveLock'
"""
NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(count: int, first: int = 1) -> bytes:
    now = time.time_ns() // 1_000_000
    rows = (
        {"symbol": f"T{n % 50}", "trade_id": n, "time": now - n % 60_000, "price": "0.5", "amount": "1", "side": "buy"}
        for n in range(first, first + count)
    )
    return b"\n".join(json.dumps(row).encode() for row in rows)


async def test_the_room_is_bounded_and_given_back() -> None:
    room = Intake(max_bytes=100, max_batches=2)
    try:
        with room.room(100) as first, room.room() as second:
            first.take(60)
            first.fill()
            second.take(40)
            second.fill()
            with pytest.raises(Unavailable) as full:
                second.take(1)
            assert full.value.code == "ingest_full"
            for announced in (0, 1):
                with pytest.raises(Unavailable), room.room(announced):
                    pass
        assert (room.bytes, room.batches, room.refused) == (0, 0, 3)
    finally:
        room.close()


@pytest.fixture
async def narrow(plain: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """A service with room for 1 MB and eight batches."""
    monkeypatch.setattr("klines.app.Intake", partial(Intake, 1_000_000, 8))
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        assert (await client.post("/api/v1/trades", content=lines(1), headers=NDJSON)).status_code == 200
        yield client


async def test_beyond_the_room_a_batch_is_refused_at_once_and_before_it_is_read(
    plain: Database, narrow: httpx.AsyncClient
) -> None:
    async def post(body: bytes) -> httpx.Response:
        return await narrow.post("/api/v1/trades", content=body, headers=NDJSON)

    async with psql(plain.url) as watch, psql(plain.url) as holder, holder.transaction():
        await holder.execute(LOCK)
        waiting = [asyncio.create_task(post(lines(1, 50 * n + 1))) for n in range(1, 9)]
        # Four wait for the lock in the database, four for a writer.
        await poll(lambda: watch.fetchval(f"SELECT ({WRITING}) = 4"))
        begun = time.monotonic()
        refused = await post(lines(1, 5001))
        assert (refused.status_code, refused.json()["code"]) == (503, "ingest_full")
        assert refused.headers["retry-after"] == "1"
        assert time.monotonic() - begun < 1
    await asyncio.gather(*waiting)
    assert (await post(lines(1, 7001))).status_code == 200

    host, port = narrow.base_url.host, narrow.base_url.port
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(
        b"POST /api/v1/trades HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\n"
        b"Content-Length: 1000001\r\n\r\n"
    )
    async with asyncio.timeout(5):
        head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 ")
    writer.close()


async def test_a_large_batch_is_parsed_beside_the_event_loop(
    plain_client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsing, go_on = threading.Event(), threading.Event()

    def slow(body: bytes, rules: TradeRules) -> TradeColumns:
        parsing.set()
        assert go_on.wait(10)
        return trades_of_ndjson(body, rules)

    monkeypatch.setattr("klines.web.trades.trades_of_ndjson", slow)
    sent = plain_client.post("/api/v1/trades", content=lines(5_000), headers=NDJSON, timeout=60)
    sending = asyncio.create_task(sent)
    assert await asyncio.to_thread(parsing.wait, 10)
    assert (await plain_client.get("/health/live")).status_code == 200
    go_on.set()
    assert (await sending).json()["inserted"] == 5_000


async def test_a_batch_that_is_wrong_is_told_from_the_thread_too(plain_client: httpx.AsyncClient) -> None:
    body = lines(5_000) + b'\n{"symbol":"T1","trade_id":1,"time":1,"price":"x","amount":"1","side":"buy"}'
    answer = await plain_client.post("/api/v1/trades", content=body, headers=NDJSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "trade_invalid")
    assert answer.json()["errors"][0]["loc"].startswith("line 5001")


async def test_an_answer_that_takes_too_long_is_refused_in_the_words_of_its_dialect(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ended = 0

    async def slow() -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    monkeypatch.setattr(deadline, "READ_SECONDS", 0.2)
    monkeypatch.setattr(deadline, "LISTEN_SECONDS", 0.05)
    app = Litestar([get("/api/v1/slow")(slow), get("/api/v3/slow")(slow)], openapi_config=None)
    async with serving_app(in_time(app)) as url, httpx.AsyncClient(base_url=url) as client:
        late = await client.get("/api/v1/slow")
        assert (late.status_code, late.json()["code"], late.headers["retry-after"]) == (503, "deadline_exceeded", "1")
        assert (await client.get("/api/v3/slow")).json()["code"] < 0
        assert ended == 2


async def test_dear_places_leave_a_connection_whatever_the_pool() -> None:
    assert [connections(size) for size in (1, 2, 5)] == [2, 2, 5]
    assert [Dear(connections(size)).places for size in (1, 2, 3, 5)] == [1, 1, 2, 2]


async def test_streams_with_long_histories_queue_as_dear_reads_do(plain: Database) -> None:
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(serving(settings_for(plain, klines_pool_size=1)))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))
        watch, holder = [await stack.enter_async_context(psql(plain.url)) for _ in range(2)]
        assert (await client.post("/api/v1/trades", content=lines(50), headers=NDJSON)).status_code == 200
        stream = url.replace("http", "ws", 1) + "/ws/klines/T{}/59s?history=1000"

        async def opens(number: int) -> int:
            try:
                async with connect(stream.format(number), proxy=None) as socket:
                    await socket.recv()
                    return 101
            except InvalidStatus as refused:
                return refused.response.status_code

        async with holder.transaction():
            await holder.execute("LOCK TABLE klines_internal.live_klines IN ACCESS EXCLUSIVE MODE")
            opening = [asyncio.create_task(opens(number)) for number in range(4)]
            await poll(lambda: watch.fetchval(f"SELECT ({BLOCKED}) >= 1", plain.name))
            for _ in range(3):
                assert (await client.get("/api/v1/trades/T1")).status_code == 200
            assert await watch.fetchval(BLOCKED, plain.name) == 1
        assert set(await asyncio.gather(*opening)) <= {101, 503}
        assert await opens(7) == 101


def test_a_full_disk_has_a_code_of_its_own() -> None:
    with pytest.raises(Unavailable) as full, translated():
        raise asyncpg.DiskFullError
    assert full.value.code == "database_full"


async def test_a_url_says_how_long_to_connect(plain: Database) -> None:
    with Proxy(upstream_of(plain.url)) as proxy:
        url = through(proxy, plain.url)
        mark = "&" if "?" in url else "?"
        connection = await connected(f"{url}{mark}connect_timeout=30")
        await connection.close()
        proxy.blackhole()
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            await connected(f"{url}{mark}connect_timeout=1")
        assert time.monotonic() - begun < 3
    assert split("postgresql://h/d?sslmode=prefer&connect_timeout=7", 5) == ("postgresql://h/d?sslmode=prefer", 7)
    assert split("postgresql://h/d?connect_timeout=0", 5) == ("postgresql://h/d", 5)
    with pytest.raises(ValueError, match="must be a number of seconds"):
        split("postgresql://h/d?connect_timeout=soon", 5)


async def test_a_service_takes_such_a_url(plain: Database) -> None:
    mark = "&" if "?" in plain.url else "?"
    settings = settings_for(Database(f"{plain.url}{mark}connect_timeout=7", "plain"), mock_data_interval=50)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.get("/health/ready")).json()["ready"] is True
