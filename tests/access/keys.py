"""Keys for tests, made as the command makes them, and a client that shows one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import asyncpg
import httpx
import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from klines.credential import NewKey, digest, new_key
from klines.database import open_engine, reading
from klines.queries import keys
from tests.application import serving, settings_for
from tests.live.streams import address_of
from tests.servers import Database

READ, WRITE, TICKETS = "/api/v1/tokens/PEPE", "/api/v1/trades", "/api/v1/tickets"
STREAM = "/ws/transactions/PEPE"
BODY = {
    "trades": [
        {"symbol": "PEPE", "trade_id": 1, "time": 1_700_000_100_000, "price": "0.5", "amount": "2", "side": "buy"}
    ]
}

# As a service that is not alone: behind a proxy nobody uses; and one that lets us guess.
PROXIED: dict[str, object] = {"klines_trusted_proxies": "192.0.2.1", "klines_login_limit": 0}


async def made(database: Database, *scopes: str, seconds: float | None = None) -> NewKey:
    """A key with these scopes, good for so many seconds."""
    key = new_key()
    expires = None if seconds is None else datetime.now(UTC) + timedelta(seconds=seconds)
    async with open_engine(database.url) as engine, reading(engine) as connection:
        await keys.add(connection, key.key_id, digest(key.text), "a test", scopes, expires)
        await connection.commit()
    return key


async def revoke(database: Database, key: NewKey) -> None:
    """End a key, as psql would do it."""
    await execute(database, "UPDATE klines_internal.api_keys SET revoked_at = now() WHERE key_id = $1", key.key_id)


async def execute(database: Database, statement: str, *values: object) -> list[asyncpg.Record]:
    """Run a statement on a connection of its own."""
    connection = await asyncpg.connect(database.url)
    try:
        return list(await connection.fetch(statement, *values))
    finally:
        await connection.close()


@asynccontextmanager
async def guarded(database: Database, auth: str, *, known: bool = False) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a key of a service with this AUTH; with `known` it has one trade of PEPE."""
    settings = settings_for(database, auth=auth, **({} if auth == "open" else PROXIED))
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        if known:
            client.headers = bearer(await made(database, "read", "write"))
            assert (await client.post(WRITE, json=BODY)).status_code == 200
            client.headers = httpx.Headers()
        yield client


def socket(client: httpx.AsyncClient, target: str, key: NewKey | None = None) -> connect:
    """A connection to the service of this client, with a key in its header."""
    headers = {"Authorization": f"Bearer {key.text}"} if key else {}
    address = address_of(client, target)
    return connect(address, proxy=None, compression=None, close_timeout=2, additional_headers=headers)


async def refused(client: httpx.AsyncClient, target: str, key: NewKey | None = None) -> tuple[int, str]:
    """Status and code with which an upgrade must be refused."""
    try:
        async with socket(client, target, key):
            raise AssertionError(f"{target} was not refused")
    except InvalidStatus as error:
        answer = error.response
        return answer.status_code, msgspec.json.decode(answer.body or b"{}")["code"]


def bearer(key: NewKey) -> httpx.Headers:
    """The header field that shows a key."""
    return httpx.Headers({"Authorization": f"Bearer {key.text}"})
