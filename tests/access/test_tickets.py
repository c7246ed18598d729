"""Tickets: what a browser shows once instead of a key."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from klines.credential import NewKey, new_ticket
from klines.web.admission import tickets
from tests.access.keys import STREAM, TICKETS, bearer, execute, guarded, made, refused, revoke, socket
from tests.access.test_sockets import all_ended
from tests.servers import Database

EVERYWHERE = (STREAM, "/ws/klines/PEPE/1m?history=2", "/ws/pepe@trade", "/stream?streams=pepe@trade", "/ws")


async def ticket(client: httpx.AsyncClient, key: NewKey | None) -> str:
    answer = await client.post(TICKETS, headers=bearer(key) if key else {})
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store"), answer.text
    assert answer.json()["expires_in"] == 30
    text: str = answer.json()["ticket"]
    return text


def with_ticket(target: str, text: str) -> str:
    return f"{target}{'&' if '?' in target else '?'}ticket={text}"


async def test_a_ticket_opens_one_socket_of_any_kind(plain: Database) -> None:
    key = await made(plain, "read")
    async with guarded(plain, "all", known=True) as client:
        for target in EVERYWHERE:
            text = await ticket(client, key)
            async with socket(client, with_ticket(target, text)) as connection:
                await (await connection.ping())
            assert await refused(client, with_ticket(target, text)) == (401, "ticket_invalid")


async def test_of_many_that_show_one_ticket_one_gets_in(plain: Database) -> None:
    key = await made(plain, "read")
    async with guarded(plain, "all", known=True) as client:
        target = with_ticket("/ws", await ticket(client, key))

        async def come() -> bool:
            try:
                return await refused(client, target) != (401, "ticket_invalid")
            except AssertionError:
                return True

        assert sum(await asyncio.gather(*(come() for _ in range(10)))) == 1


async def test_its_key_holds_for_the_socket(plain: Database) -> None:
    key, writer = await made(plain, "read"), await made(plain, "write")
    async with guarded(plain, "all", known=True) as client:
        async with socket(client, with_ticket(STREAM, await ticket(client, key))) as mine:
            unused = await ticket(client, key)
            await revoke(plain, key)
            await all_ended([mine])
            assert await refused(client, with_ticket(STREAM, unused)) == (401, "key_invalid")
        answer = await client.post(TICKETS, headers=bearer(writer))
        assert (answer.status_code, answer.json()["code"]) == (403, "scope")
        assert (await client.post(TICKETS)).status_code == 401
        reader = await made(plain, "read")
        text = with_ticket(STREAM, await ticket(client, reader))
        assert await refused(client, text, reader) == (400, "credentials_repeated")


async def test_a_ticket_is_good_for_a_while(plain: Database) -> None:
    key = await made(plain, "read")
    async with guarded(plain, "all", known=True) as client:
        text = await ticket(client, key)
        await execute(plain, "UPDATE klines_internal.tickets SET expires_at = now() - INTERVAL '1 ms'")
        assert await refused(client, with_ticket(STREAM, text)) == (401, "ticket_invalid")
        assert await refused(client, with_ticket(STREAM, new_ticket())) == (401, "ticket_invalid")
        for bad in ("", "x", text[:-1], text + "0", "klt_%00"):
            assert await refused(client, with_ticket(STREAM, bad)) == (401, "ticket_malformed"), bad
        assert await refused(client, with_ticket(with_ticket(STREAM, text), text)) == (400, "credentials_repeated")


async def test_tickets_are_bounded_and_swept(plain: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tickets, "MAX_TICKETS", 3)
    key, other = await made(plain, "read"), await made(plain, "read")
    async with guarded(plain, "all", known=True) as client:
        for _ in range(3):
            await ticket(client, key)
        answer = await client.post(TICKETS, headers=bearer(key))
        assert (answer.status_code, answer.json()["code"]) == (429, "tickets_exhausted")
        assert answer.headers["retry-after"] == "30"
        await ticket(client, other)
        await execute(plain, "UPDATE klines_internal.tickets SET expires_at = now() - INTERVAL '1 s'")
        await ticket(client, key)
        assert (await execute(plain, "SELECT count(*) FROM klines_internal.tickets"))[0][0] == 1


async def test_where_no_key_is_needed_a_ticket_needs_none(plain: Database) -> None:
    async with guarded(plain, "open", known=True) as client:
        target = with_ticket(STREAM, await ticket(client, None))
        async with socket(client, target) as connection:
            await connection.recv()
        assert await refused(client, target) == (401, "ticket_invalid")
        # Not of a socket: no route but theirs knows the parameter.
        assert (await client.get("/api/v1/tokens?ticket=x")).json()["code"] == "param_unknown"


async def test_nobody_fills_an_allowance_that_others_share(plain: Database) -> None:
    async with guarded(plain, "write", known=True) as client:
        for _ in range(3):
            answer = await client.post(TICKETS)
            assert (answer.status_code, answer.json()["code"]) == (401, "key_missing")
        assert await execute(plain, "SELECT * FROM klines_internal.tickets") == []
        async with socket(client, STREAM) as connection:
            await connection.recv()
        target = with_ticket(STREAM, await ticket(client, await made(plain, "read")))
        async with socket(client, target) as connection:
            await connection.recv()
