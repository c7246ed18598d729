"""`/metrics`: what is measured, in both formats, with few labels, and for all server processes at once."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from websockets.asyncio.client import ClientConnection, connect

from tests.application import serving, settings_for
from tests.observe.scrape import Scrape, scrape
from tests.servers import Database, Server
from tests.service.processes import service

SECONDS = 10.0


def trades(*ids: int, price: str = "1") -> dict[str, object]:
    now = time.time_ns() // 1_000_000
    one = {"symbol": "PEPE-SOL", "price": price, "amount": "2", "side": "buy"}
    return {"trades": [one | {"trade_id": number, "time": now // 1000 * 1000} for number in ids]}


@asynccontextmanager
async def stream(url: str, path: str) -> AsyncIterator[ClientConnection]:
    async with asyncio.timeout(SECONDS), connect(url.replace("http", "ws") + path) as socket:
        await socket.recv()
        yield socket


async def until(client: httpx.AsyncClient, name: str, value: float, **labels: str) -> Scrape:
    """The first scrape in which a metric has this value."""
    async with asyncio.timeout(SECONDS):
        while (found := await scrape(client)).value(name, **labels) != value:  # noqa: ASYNC110 - scrapes say nothing
            await asyncio.sleep(0.02)
    return found


async def test_requests_by_route_template_and_batches(plain_client: httpx.AsyncClient) -> None:
    for symbol in ("A", "B", "C"):
        await plain_client.get(f"/api/v1/klines/{symbol}", params={"interval": "1m"})
        await plain_client.head(f"/api/v1/klines/{symbol}")
        await plain_client.get(f"/no/such/{symbol}")
    await plain_client.request("PROPFIND", "/api/v1/tokens")
    found = await scrape(plain_client)
    count = "klines_http_request_seconds_count"
    assert found.value(count, method="GET", status="4xx", route="/api/v1/klines/{token_symbol}") == 3
    assert found.value(count, method="HEAD", status="4xx", route="/api/v1/klines/{token_symbol}") == 3
    assert found.value(count, method="GET", route="unknown") == 3
    assert found.value(count, method="other") == 1
    assert not {value for value in found.labels("route") if "/A" in value}
    assert found.value("klines_http_requests_in_progress") == 1, "the scrape itself"
    series = len((await scrape(plain_client)).samples)
    for number in range(50):
        headers = {"X-Request-ID": f"id{number}", "X-API-Key": f"key{number}", "Host": f"host{number}.localhost"}
        await plain_client.get(f"/api/v1/klines/T{number}?limit={number}", headers=headers)
    assert len((await scrape(plain_client)).samples) <= series + 16, "whatever clients send, one more status at most"
    await batches_and_the_lag_of_their_trades(plain_client)
    for accept in ("application/openmetrics-text; version=nonsense", "text/html,*/*", "nonsense", ""):
        await any_accept_is_answered(plain_client, accept)


async def test_refusals_before_any_route_are_counted_by_their_codes(plain_client: httpx.AsyncClient) -> None:
    big = {"X-Big": "x" * 64 * 1024}
    upgrade = UPGRADE | {"Sec-WebSocket-Version": "8"}
    for path, headers, status in (
        ("/api/v1/klines/PEPE", {"Accept": "text/html"}, 406),
        ("/api/v1/klines/PEPE", {"X-API-Key": "klk_x"}, 401),
        ("/api/v1/tokens", {"Host": "a b"}, 400),
        ("/nowhere", {"Origin": "https://evil.example"}, 403),
        ("/ws", UPGRADE | {"Origin": "https://evil.example"}, 403),
        ("/api/v1/tokens", big, 431),
        ("/ws", upgrade, 400),
    ):
        answer = await plain_client.request(
            "PUT" if status == 403 and "ws" not in path else "GET", path, headers=headers
        )
        assert answer.status_code == status, answer.text
        assert "x-request-id" in answer.headers
    found = await scrape(plain_client)
    told = {(one, code): found.value("klines_refusals_total", by=one, code=code) for one, code in REFUSALS}
    assert told == REFUSALS
    count = "klines_http_request_seconds_count"
    assert found.value(count, route="/api/v1/klines/{token_symbol}", status="4xx") == 2
    assert found.value(count, route="/api/v1/tokens", status="4xx") == 1
    assert found.value(count, route="unknown") == 1


REFUSALS = {
    ("gate", "not_acceptable"): 1,
    ("gate", "key_malformed"): 1,
    ("gate", "host_invalid"): 1,
    ("gate", "origin_refused"): 2,
    ("server", "headers_too_large"): 1,
    ("server", "handshake_invalid"): 1,
}


async def batches_and_the_lag_of_their_trades(plain_client: httpx.AsyncClient) -> None:
    for body in (trades(1, 2), trades(2, 3), trades(3, price="9")):
        await plain_client.post("/api/v1/trades", json=body)
    found = await scrape(plain_client)
    assert found.value("klines_ingest_trades_received_total") == 5
    outcomes = ("inserted", "duplicate", "conflict")
    assert [found.value("klines_ingest_trades_total", outcome=one) for one in outcomes] == [3, 1, 1]
    assert found.value("klines_ingest_batches_total", outcome="stored") == 3
    assert found.value("klines_ingest_seconds_count") == 3
    assert found.value("klines_trade_stored_lag_seconds_count") == 2, "of batches that stored something"
    assert found.value("klines_trade_stored_lag_seconds_bucket", le="60.0") == 2


async def test_sockets_are_counted_and_not_timed(plain: Database) -> None:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post("/api/v1/trades", json=trades(1))
        async with stream(url, "/ws/klines/PEPE-SOL/1m") as socket:
            found = await scrape(client)
            assert found.value("klines_connections", kind="klines") == 1
            assert found.value("klines_hub_subscribers", hub="native") == 1
            await client.post("/api/v1/trades", json=trades(2))
            await socket.recv()
            found = await until(client, "klines_push_lag_seconds_count", 1)
            assert found.value("klines_relay_tokens_read_total") >= 1
        found = await until(client, "klines_connections", 0)
        assert found.value("klines_connection_closes_total", kind="klines", code="1000") == 1
        answer = await client.get("/ws/klines/PEPE-SOL/nonsense", headers=UPGRADE)
        assert (answer.status_code, len(answer.headers["x-request-id"])) == (404, 16)
        found = await scrape(client)
        assert found.value("klines_connection_refusals_total", kind="klines", status="4xx") == 1
        assert not {route for route in found.labels("route") if route.startswith("/ws")}


UPGRADE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


async def any_accept_is_answered(plain_client: httpx.AsyncClient, accept: str) -> None:
    answer = await plain_client.get("/metrics", headers={"Accept": accept})
    assert answer.status_code == 200
    open_format = "openmetrics" in accept
    assert answer.headers["content-type"].startswith("application/openmetrics-text" if open_format else "text/plain")
    if open_format:
        families = open_metrics(answer.text)  # type: ignore[no-untyped-call]
        assert {family.name for family in families} >= {"klines_ingest_trades", "klines_workers"}


async def test_the_database_is_read_beside_and_a_scrape_never_needs_it(timescale: Database, server: Server) -> None:
    connection = await asyncpg.connect(timescale.url)
    await connection.execute("INSERT INTO klines_internal.disagreements SELECT now(), 1, 60, now(), '{}', '{}'")
    await connection.execute("UPDATE klines_internal.levels SET seam = now() - keep - interval '90 s'")
    await connection.close()
    async with serving(settings_for(timescale)) as url, httpx.AsyncClient(base_url=url) as client:
        found = await until(client, "klines_database_up", 1)
        assert found.value("klines_bars_disagreed") == 1
        assert 90 <= found.value("klines_seam_lag_seconds", interval="15m") < 90 + SECONDS
        assert found.value("klines_database_size_bytes") > 1e6
        assert found.value("klines_database_sessions") > 2
        assert 0 <= found.value("klines_notify_queue_ratio") < 0.1
        administrator = await asyncpg.connect(server.url)
        await administrator.execute(f"ALTER DATABASE {timescale.name} ALLOW_CONNECTIONS false")
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
        await administrator.execute(ends, timescale.name)
        await administrator.close()
        began = time.perf_counter()
        assert (await scrape(client)).value("klines_bars_disagreed") == 1, "what was found last"
        assert time.perf_counter() - began < 1
        await until(client, "klines_listener_up", 0)
        for _ in range(8):
            await client.get("/api/v1/tokens", timeout=30)
        found = await scrape(client)
        assert found.value("klines_breaker_state", state="closed") == 0
        assert found.value("klines_http_request_seconds_count", status="5xx") == 8


def fetched(url: str) -> Scrape:
    # A connection of its own each time: any of the processes may answer.
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310 - an address of our own
        return Scrape(answer.read().decode())


@pytest.mark.slow
def test_a_scrape_of_any_process_is_that_of_all(plain: Database) -> None:
    with service(DATABASE_URL=plain.url, WORKERS="2") as running:
        url = running.url()
        running.wait_for(lambda line: "startup complete" in line)
        route = "/api/v1/tokens"
        with httpx.Client(base_url=url) as one, httpx.Client(base_url=url) as other:
            for client in (one, other, one, other, one):
                assert client.get(route).status_code == 200
        deadline = time.monotonic() + SECONDS
        count = "klines_http_request_seconds_count"
        while fetched(url).value(count, route=route) < 5 and time.monotonic() < deadline:
            time.sleep(0.1)
        before = 0.0
        for _ in range(20):
            found = fetched(url)
            assert found.value(count, route=route) == 5
            assert found.value("klines_workers") == found.value("klines_workers_wanted") == 2
            scrapes = found.value(count, route="/metrics")
            assert scrapes >= before, "sums never go back"
            before = scrapes
        assert found.value("klines_pool_size", pool="writers") == 8
