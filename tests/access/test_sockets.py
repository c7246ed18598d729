"""Sockets end with their key: revoked, expired, or with a scope taken away, whatever else is broken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import httpx
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from klines import keyring
from klines.credential import NewKey, new_key
from tests.access.keys import (
    BODY,
    PROXIED,
    READ,
    STREAM,
    TICKETS,
    WRITE,
    bearer,
    execute,
    guarded,
    made,
    refused,
    revoke,
    socket,
)
from tests.servers import Database, Server
from tests.service.processes import service

PROMISED = 5.0
TARGETS = (STREAM, "/ws/klines/PEPE/1m", "/ws/pepe@trade", "/stream?streams=pepe@kline_1m/pepe@trade", "/ws")


async def ended(connection: ClientConnection) -> tuple[int | None, float]:
    """Read to the end; the close code, and how long it took."""
    begun = time.monotonic()
    async with asyncio.timeout(2 * PROMISED):
        with suppress(ConnectionClosed):
            async for _ in connection:
                pass
        await connection.wait_closed()
    return connection.close_code, time.monotonic() - begun


@asynccontextmanager
async def sockets(client: httpx.AsyncClient, key: NewKey) -> AsyncIterator[list[ClientConnection]]:
    """One open socket of each kind."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(socket(client, target, key)) for target in TARGETS]


async def all_ended(connections: list[ClientConnection]) -> None:
    for code, seconds in await asyncio.gather(*map(ended, connections)):
        assert code == 4401
        assert seconds < PROMISED


async def test_sockets_end_with_their_key_and_no_others(plain: Database) -> None:
    """Revoked, expired, or with a scope taken away; also where no key is needed, if one was shown."""
    revoked, narrowed, other = [await made(plain, "read", "write") for _ in range(3)]
    async with guarded(plain, "all", known=True) as client, guarded(plain, "write") as freer, AsyncExitStack() as stack:
        expiring = await made(plain, "read", seconds=3)
        mine = [await stack.enter_async_context(sockets(client, key)) for key in (expiring, revoked, narrowed)]
        shown = await stack.enter_async_context(socket(freer, STREAM, revoked))
        others = [await stack.enter_async_context(socket(client, STREAM, other))]
        others.append(await stack.enter_async_context(socket(freer, STREAM)))
        await revoke(plain, revoked)
        await execute(
            plain, "UPDATE klines_internal.api_keys SET scopes = '{write}' WHERE key_id = $1", narrowed.key_id
        )
        await all_ended([shown, *(connection for connections in mine for connection in connections)])
        assert await refused(client, STREAM, revoked) == (401, "key_invalid")
        assert await refused(client, STREAM, expiring) == (401, "key_invalid")
        assert await refused(client, STREAM, narrowed) == (403, "scope")
        assert (await client.get(READ, headers=bearer(revoked))).status_code == 401
        for connection in others:
            await (await connection.ping())


async def test_a_terminated_listener_and_reader_delay_nothing(plain: Database) -> None:
    key = await made(plain, "read")
    async with guarded(plain, "all", known=True) as client, sockets(client, key) as mine:
        terminate = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND pid <> pg_backend_pid()"
        )
        await execute(plain, terminate, plain.name)
        await revoke(plain, key)
        await all_ended(mine[-1:])
        # The streams themselves may also have been given up with their database.
        assert {code for code, _ in await asyncio.gather(*map(ended, mine))} <= {4401, 1012, 4503}
        assert await refused(client, STREAM, key) == (401, "key_invalid")


async def test_without_a_database_known_keys_stay_good_until_they_expire(plain: Database, server: Server) -> None:
    key = await made(plain, "read")
    async with guarded(plain, "all", known=True) as client:
        short = await made(plain, "read", seconds=4)
        for one in (key, short):
            assert (await client.get("/api/v3/ping", headers=bearer(one))).status_code == 200
        allow = f"ALTER DATABASE {plain.name} ALLOW_CONNECTIONS"
        async with socket(client, "/ws", short) as mine:
            await asyncio.to_thread(server.execute, f"{allow} false")
            terminate = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{plain.name}'"
            await asyncio.to_thread(server.execute, terminate)
            answer = await client.get("/api/v3/ping", headers=bearer(new_key()))
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
            await all_ended([mine])
            assert (await client.get("/api/v3/ping", headers=bearer(key))).status_code == 200
        await asyncio.to_thread(server.execute, f"{allow} true")


async def test_a_new_key_works_at_once(plain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "POLL_SECONDS", 1000.0)
    async with guarded(plain, "all", known=True) as client:
        for _ in range(3):
            key = await made(plain, "read")
            assert (await client.get(READ, headers=bearer(key))).status_code == 200


async def test_those_that_guess_share_a_reading(plain: Database) -> None:
    """However many unknown keys come at once, the database is asked a few times only."""
    asked = "SELECT calls FROM pg_stat_user_tables, LATERAL (SELECT seq_scan AS calls) AS c WHERE relname = 'key_stamp'"
    keys = [new_key() for _ in range(200)]
    async with guarded(plain, "all") as client:
        before = (await execute(plain, asked))[0][0]
        answers = await asyncio.gather(*(client.get("/api/v3/ping", headers=bearer(key)) for key in keys))
        assert {answer.status_code for answer in answers} == {401}
    after = (await execute(plain, asked))[0][0]
    assert after - before < 50


@pytest.mark.slow
async def test_two_workers_close_and_redeem_alike(plain: Database) -> None:
    """Revocation reaches the sockets of both processes; a ticket opens one socket, in whichever process."""
    key = await made(plain, "read", "write")
    environment = {name.upper(): str(value) for name, value in PROXIED.items()}
    with service(DATABASE_URL=plain.url, WORKERS="2", AUTH="all", **environment) as running:
        url = running.url()
        running.wait_for(lambda line: "startup complete" in line)
        async with httpx.AsyncClient(base_url=url, headers=bearer(key)) as client, AsyncExitStack() as stack:
            assert (await client.post(WRITE, json=BODY)).status_code == 200
            opened = []
            for _ in range(12):
                ticket = (await client.post(TICKETS)).json()["ticket"]
                target = f"{STREAM}?ticket={ticket}"
                opened.append(await stack.enter_async_context(socket(client, target)))
                for _ in range(3):
                    assert await refused(client, target) == (401, "ticket_invalid")
            await revoke(plain, key)
            await all_ended(opened)
            assert key.text not in running.log
