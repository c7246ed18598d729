"""Connections on which the peer may speak: what comes in is bounded, and is not read while nobody takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.frames import Frame, Opcode

from klines.web.transport import inward
from klines.web.transport.connection import EXTENSION
from klines.web.transport.inward import MAX_AT_ONCE
from tests.application import serving_app
from tests.service.test_connection import KIBIBYTE, Flow, Patient, Run, ended, lifespan, run, stuck

__all__ = ["run"]

MASKED = Frame(Opcode.TEXT, b"{}").serialize(mask=True)


class Hearing:
    """Accepts, and leaves it to the test to receive."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[tuple[Any, Any]] = asyncio.Queue()
        self.over = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        connection = scope["extensions"][EXTENSION]["connection"]
        connection.feeder = Flow()
        connection.hears()
        await receive()
        await send({"type": "websocket.accept"})
        self.accepted.put_nowait((connection, receive))
        await self.over.wait()


@asynccontextmanager
async def hearing() -> AsyncIterator[tuple[Hearing, str]]:
    app = Hearing()
    async with serving_app(app, ws=Patient) as url:
        yield app, url.replace("http", "ws") + "/stream"
        app.over.set()


@asynccontextmanager
async def heard(app: Hearing, url: str) -> AsyncIterator[tuple[ClientConnection, Any, Any]]:
    """A client, the server's side of it, and its `receive`."""
    async with connect(url, proxy=None, compression=None) as client:
        yield (client, *await app.accepted.get())


async def until(true: Any) -> None:
    while not true():  # noqa: ASYNC110 - no event tells it
        await asyncio.sleep(0)


def test_messages_reach_the_application_in_order(run: Run[None]) -> None:
    async def body() -> None:
        async with hearing() as (app, url), heard(app, url) as (client, connection, receive):
            for message in ("a", ["b", "", "c"], "", "x" * 64 * 1024):
                await client.send(message)
            texts = [(await receive())["text"] for _ in range(4)]
            assert texts == ["a", "bc", "", "x" * 64 * 1024]
            connection.close(1000)
            assert (await receive())["type"] == "websocket.disconnect"

    run(body())


def test_nothing_is_read_while_a_message_waits(run: Run[None]) -> None:
    async def body() -> None:
        async with hearing() as (app, url), heard(app, url) as (client, connection, receive):
            await client.send("first")
            await until(lambda: not connection.transport.is_reading())
            await client.send("second")
            assert (await receive())["text"] == "first"
            assert connection.transport.is_reading()
            assert (await receive())["text"] == "second"

    run(body())


def test_who_does_not_read_is_not_read_on(run: Run[None]) -> None:
    async def body() -> None:
        async with hearing() as (app, url):
            with stuck(url) as client:
                await asyncio.to_thread(client.upgrade)
                connection, receive = await app.accepted.get()
                client.socket.sendall(MASKED)
                await until(lambda: not connection.queue.empty())
                while not connection.feeder.paused.is_set():
                    connection.write(KIBIBYTE)
                assert (await receive())["text"] == "{}"
                assert not connection.transport.is_reading()
                while not connection.feeder.resumed.is_set():
                    await asyncio.to_thread(client.read_exactly, 1024)
                assert connection.transport.is_reading()
                connection.transport.abort()
                await connection.lost.wait()

    run(body())


def test_a_close_is_answered_although_messages_wait(run: Run[None]) -> None:
    async def body() -> None:
        async with hearing() as (app, url), heard(app, url) as (client, connection, receive):
            await client.send("first")
            await until(lambda: not connection.transport.is_reading())
            connection.close(1008, "enough")
            assert await ended(client) == (1008, "enough")
            await connection.lost.wait()
            assert (await receive())["text"] == "first"
            assert (await receive())["code"] == 1008

    run(body())


def test_what_comes_at_once_is_bounded(run: Run[None]) -> None:
    async def body() -> None:
        async with hearing() as (app, url), heard(app, url) as (client, connection, receive):
            client.transport.write(MASKED * (MAX_AT_ONCE + 1))
            client.transport.write(MASKED * 10_000)
            await connection.lost.wait()
            count = 0
            while (await receive())["type"] == "websocket.receive":
                count += 1
            assert count <= MAX_AT_ONCE + 1

    run(body())


def test_who_goes_while_messages_wait_is_missed(run: Run[None]) -> None:
    async def body() -> None:
        async with hearing() as (app, url), heard(app, url) as (client, connection, receive):
            await client.send("first")
            await until(lambda: not connection.transport.is_reading())
            client.transport.abort()
            assert (await receive())["text"] == "first"
            assert (await receive())["type"] == "websocket.disconnect"
            await connection.lost.wait()

    run(body())


@pytest.mark.parametrize("pieces", [1000, 60_000])
def test_pieces_of_nothing_take_nothing(run: Run[None], pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # So many are refused otherwise: what they would take is asked all the same.
    monkeypatch.setattr(inward, "MAX_CHATTER", 10**9)

    async def body() -> None:
        async with hearing() as (app, url), heard(app, url) as (client, connection, receive):
            empty = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
            client.transport.write(Frame(Opcode.TEXT, b"a", fin=False).serialize(mask=True) + empty * pieces)
            client.transport.write(Frame(Opcode.CONT, b"b").serialize(mask=True))
            assert (await receive())["text"] == "ab"
            assert connection.frames == []

    run(body())
