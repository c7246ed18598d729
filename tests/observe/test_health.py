"""`/health/ready` is red whenever a write would fail, says why in words and in codes, and turns green again."""

from __future__ import annotations

import asyncio
import signal
from types import FrameType, SimpleNamespace
from typing import Any

import asyncpg
import httpx
import pytest

from klines.errors import Unavailable
from klines.queries.server import State
from klines.web.health import _of_database
from klines.web.leaving import noticed
from tests.application import serving, settings_for
from tests.servers import Database, Server

SECONDS = 15.0


async def codes_until(client: httpx.AsyncClient, *wanted: str) -> None:
    """Wait until readiness has these codes, and none besides."""
    found: list[str] = []
    try:
        async with asyncio.timeout(SECONDS):
            while True:
                answer = await client.get("/health/ready")
                found = answer.json()["codes"]
                assert (answer.status_code == 200) is (not found) is answer.json()["ready"]
                assert len(answer.json()["problems"]) == len(found)
                if set(found) == set(wanted):
                    return
                await asyncio.sleep(0.05)
    except TimeoutError:
        pytest.fail(f"codes are {found}")


async def test_ready_tells_what_stands_against_a_write(plain: Database, server: Server) -> None:
    administrator = await asyncpg.connect(server.url)

    async def change(what: str) -> None:
        # Sessions that stand keep what they began with.
        await administrator.execute(f"ALTER DATABASE {plain.name} {what}")
        ends = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1"
        await administrator.execute(ends, plain.name)

    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        await codes_until(client)
        await change("SET default_transaction_read_only = on")
        await codes_until(client, "database_read_only")
        await change("SET synchronous_commit = off")
        await codes_until(client, "database_read_only", "durability")
        await change("RESET ALL")
        await codes_until(client)
        connection = await asyncpg.connect(plain.url)
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
        await codes_until(client, "schema")
        await connection.close()
    await administrator.close()


async def test_a_full_disk_shows_until_a_write_succeeds(plain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    from klines.writer import TradeWriter  # noqa: PLC0415 - patched below

    write = TradeWriter.write

    async def full(*_: object) -> None:
        raise Unavailable("the database has no room left on its disk", code="database_full")

    body = {"trades": [{"symbol": "A", "trade_id": 1, "time": 1_700_000_000_000} | PRICED]}
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        monkeypatch.setattr(TradeWriter, "write", full)
        assert (await client.post("/api/v1/trades", json=body)).status_code in {503, 507}
        await codes_until(client, "database_full")
        monkeypatch.setattr(TradeWriter, "write", write)
        assert (await client.post("/api/v1/trades", json=body)).status_code == 200
        await codes_until(client)

        async def busy(*_: object) -> None:
            raise Unavailable("the database is busy", code="database_busy")

        monkeypatch.setattr(TradeWriter, "write", busy)
        assert (await client.post("/api/v1/trades", json=body)).status_code == 503
        await codes_until(client, "write_refused")
        monkeypatch.setattr(TradeWriter, "write", write)
        assert (await client.post("/api/v1/trades", json=body)).status_code == 200
        await codes_until(client)


def test_what_the_database_says_of_writing_is_told() -> None:
    services: Any = SimpleNamespace(schema=SimpleNamespace(newest="9"))
    state = State({"fsync": "on"}, read_only=False, revision="9", may_write=True, notify_queue=0.9)
    assert list(_of_database(services, state)) == []
    told = _of_database(services, state._replace(may_write=False, notify_queue=1.0))
    assert [code for code, _ in told] == ["write_forbidden", "notify_queue_full"]


PRICED = {"price": "1", "amount": "1", "side": "buy"}


def test_the_signal_is_noticed_and_handled_as_before() -> None:
    handled = []

    def handler(number: int, _: FrameType | None) -> None:
        handled.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    try:
        with noticed() as leaving:
            assert not leaving.told
            signal.raise_signal(signal.SIGTERM)
            assert leaving.told
        assert handled == [signal.SIGTERM]
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)
