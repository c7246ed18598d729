"""Request ids and the access log."""

from __future__ import annotations

import asyncio
import logging

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.application import serving, settings_for
from tests.observe.test_metrics import stream, trades, until
from tests.servers import Database


def told(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "klines.requests"]


async def test_every_answer_has_an_id_and_every_line_its_request(
    plain: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    settings = settings_for(plain, klines_access_log="all")
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        for given in ("abc-1.2_3", "a" * 64):
            answer = await client.get("/api/v1/tokens?limit=7", headers={"X-Request-ID": given})
            assert answer.headers.get_list("x-request-id") == [given]
        made = set()
        for given in ("a" * 65, "a b", "a\tb", "ä", ""):
            answer = await client.get("/nowhere", headers={b"X-Request-ID": given.encode()})
            made.add(answer.headers["x-request-id"])
        assert len(made) == 5
        assert all(len(name) == 16 for name in made)
        for path in ("/schema", "/health/live", "/metrics", "/", "/api/v3/ping"):
            assert "x-request-id" in (await client.head(path)).headers, path
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"{url.replace('http', 'ws')}/ws/klines/NONE/1m", proxy=None)
        assert "x-request-id" in refused.value.response.headers
        await client.post("/api/v1/trades", json=trades(1))
        async with stream(url, "/ws/klines/PEPE-SOL/1m"):
            pass
        await until(client, "klines_connections", 0)
    lines = [record.getMessage() for record in told(caplog)]
    assert "limit" not in "".join(lines), "no query"
    assert [line for line in lines if line.startswith("request method=GET route=/api/v1/tokens status=200 ms=")]
    assert [line for line in lines if line.startswith("upgrade refused route=/ws/klines/{token}/{interval} status=404")]
    (closed,) = [record for record in told(caplog) if record.getMessage().startswith("socket closed")]
    assert (closed.code, closed.frames, closed.client) == (1000, 1, "127.0.0.1")  # type: ignore[attr-defined]
    assert closed.bytes > 100  # type: ignore[attr-defined]


async def test_by_default_only_failures_are_logged_and_not_too_many(
    plain: Database, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        for path in ("/api/v1/tokens", "/nowhere", "/api/v1/klines/NONE"):
            await client.get(path)
        assert told(caplog) == []
        # A fault of ours, which no request can cause: a route without what it needs.
        monkeypatch.setattr("klines.queries.tokens.listing", None)
        answers = await asyncio.gather(*(client.get("/api/v1/tokens") for _ in range(60)))
        assert {answer.status_code for answer in answers} == {500}
        lines = [record.getMessage() for record in told(caplog)]
    assert 20 <= len(lines) < 60
    assert "status=500" in lines[0]
