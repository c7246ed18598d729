"""Clients with addresses of their own, of a service behind a proxy that tells it theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx

from klines.credential import NewKey
from tests.access.keys import made
from tests.application import serving, settings_for
from tests.servers import Database

PROXY = "127.0.0.1"
HERE = "198.51.100.1"
ELSEWHERE = "198.51.100.2"
Ask = Callable[..., Awaitable[httpx.Response]]


class Clients:
    """`service` has a connection pool for all of them; `writer` a key with the scope write."""

    def __init__(self, service: httpx.AsyncClient, writer: NewKey) -> None:
        self.service = service
        self.writer = writer

    async def ask(self, path: str, *, method: str = "GET", address: str = HERE, key: str = "", **more: Any) -> Any:
        """The answer to one client."""
        return await self.service.request(method, path, headers=fields(address, key), **more)

    async def post(self, rows: int, *, first: int = 1, address: str = HERE, key: str = "") -> Any:
        """The answer to so many trades, by default those of the writer."""
        trades = [
            {"symbol": "PEPE", "trade_id": first + n, "time": 1_700_000_100_000, "price": "0.5", "amount": "2"}
            | {"side": "buy"}
            for n in range(rows)
        ]
        body = {"trades": trades}
        return await self.ask("/api/v1/trades", method="POST", address=address, key=key or self.writer.text, json=body)


def fields(address: str, key: str = "") -> dict[str, str]:
    """What tells a client from others."""
    return {"X-Forwarded-For": address} | ({"X-API-Key": key} if key else {})


@asynccontextmanager
async def clients(database: Database, **changes: object) -> AsyncIterator[Clients]:
    """Clients of a service with these settings."""
    settings = settings_for(database, **({"auth": "write", "klines_trusted_proxies": PROXY} | changes))
    key = await made(database, "write")
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as service:
        yield Clients(service, key)
