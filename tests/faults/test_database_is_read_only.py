"""A database that takes no writes, as a standby: writes are told so, and reads go on."""

from __future__ import annotations

from collections import Counter

import asyncpg
import httpx

from klines.breaker import FAILURES
from tests.application import serving, settings_for
from tests.servers import Database

TRADE = {"symbol": "PEPE", "trade_id": 1, "time": 1_700_000_000_000, "price": "1", "amount": "2", "side": "buy"}


async def test_reads_go_on_where_writes_are_refused(plain: Database) -> None:
    async with serving(settings_for(plain)) as url, httpx.AsyncClient(base_url=url) as client:
        assert (await client.post("/api/v1/trades", json={"trades": [TRADE]})).status_code == 200
        owner = await asyncpg.connect(plain.url)
        name = await owner.fetchval("SELECT quote_ident(current_database())")
        await owner.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        await owner.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        codes: Counter[str] = Counter()
        for _ in range(3 * FAILURES):
            answer = await client.post("/api/v1/trades", json={"trades": [TRADE | {"trade_id": 2}]})
            assert answer.status_code == 503
            codes[answer.json()["code"]] += 1
            assert (await client.get("/api/v1/klines/PEPE")).status_code in {200, 503}
        # The first ones may have met a connection that was ended.
        assert codes["database_read_only"] > 2 * FAILURES, codes
        assert (await client.get("/api/v1/klines/PEPE")).status_code == 200
        await owner.execute(f"ALTER DATABASE {name} RESET default_transaction_read_only")
        await owner.close()
