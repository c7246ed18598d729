"""Health, the OpenAPI document, and what is said when the database is gone."""

from __future__ import annotations

import asyncio

import asyncpg
import httpx

from klines.app import create_app
from klines.settings import Settings
from tests.application import serving, settings_for
from tests.servers import Database, Server


async def test_ready_tells_profile_revision_and_durability(client: httpx.AsyncClient, profile: str) -> None:
    body = (await client.get("/health/ready")).json()
    assert (body["ready"], body["problems"], body["profile"]) == (True, [], profile)
    assert body["durability"] == {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    assert (await client.get("/health/live")).json() == {"status": "live"}


async def test_a_database_that_is_gone_makes_503_and_comes_back(plain: Database, server: Server) -> None:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url, timeout=20) as client:
        assert (await client.get("/health/ready")).status_code == 200
        administrator = await asyncpg.connect(server.url)
        await administrator.execute(f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS false")
        await administrator.execute(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{plain.name}'"
        )
        ready = await client.get("/health/ready")
        assert ready.status_code == 503
        assert "the database does not answer" in ready.json()["problems"]
        for answer in (
            await client.get("/api/v1/klines/PEPE"),
            await client.get("/api/v1/tokens"),
            await client.post(
                "/api/v1/trades",
                json={
                    "trades": [
                        {
                            "symbol": "A",
                            "trade_id": 1,
                            "time": 1_700_000_000_000,
                            "price": "1",
                            "amount": "1",
                            "side": "buy",
                        }
                    ]
                },
            ),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            assert answer.headers["retry-after"] == "1"
        assert (await client.get("/health/live")).status_code == 200
        await administrator.execute(f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS true")
        await administrator.close()
        async with asyncio.timeout(10):
            # The streams need a moment to be live again, and say so.
            while (ready := await client.get("/health/ready")).status_code != 200:
                assert ready.json()["problems"] == ["the streams are stale"]
        assert (await client.get("/api/v1/klines/PEPE")).status_code == 404


async def test_the_openapi_document_has_every_route_and_parameter(plain_client: httpx.AsyncClient) -> None:
    document = (await plain_client.get("/schema")).json()
    operations = {
        (path, method) for path, item in document["paths"].items() for method in item if method != "parameters"
    }
    assert operations == {
        ("/api/v1/klines/{token_symbol}", "get"),
        ("/api/v1/trades/{token_symbol}", "get"),
        ("/api/v1/trades", "post"),
        ("/api/v1/tokens", "get"),
        ("/api/v1/tokens/{token_symbol}", "get"),
        ("/api/v1/tokens/{token_symbol}", "put"),
        ("/api/v1/tickets", "post"),
        ("/health/live", "get"),
        ("/health/ready", "get"),
    }
    described = document["paths"]["/api/v1/klines/{token_symbol}"]["get"]["parameters"]
    assert [parameter["name"] for parameter in described] == ["token_symbol", "interval", "limit", "from", "to", "fill"]
    assert (await plain_client.get("/schema/openapi.json")).json() == document


def test_nothing_happens_at_import_or_creation() -> None:
    assert create_app(Settings()) is not None
