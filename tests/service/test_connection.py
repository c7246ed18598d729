"""A WebSocket connection and the server around it: back-pressure, ends that do not wait for the peer, and the drain."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import psutil
import pytest
import uvloop
from uvicorn.protocols.utils import ClientDisconnected
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from klines import logs, server
from klines.web.transport import inward
from klines.web.transport.connection import ENOUGH, EXTENSION, RESTARTING, Connection
from tests.application import serving_app
from tests.service.processes import DEADLINE, Service

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]
WAIT = 20
# Before the kernel itself drops a peer that acknowledges nothing.
SOON = server.USER_TIMEOUT_MS / 2000
KIBIBYTE = Frame(Opcode.TEXT, b"x" * 1020).serialize(mask=False)
HELLO = Frame(Opcode.TEXT, b"hello").serialize(mask=False)


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Run[None]]:
    """Runs a coroutine in the event loop of the tests, and in the one that the service has."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, DEADLINE))


class Flow:
    """A feeder that remembers what it was told."""

    def __init__(self) -> None:
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()

    def pause(self) -> None:
        self.resumed.clear()
        self.paused.set()

    def resume(self) -> None:
        self.paused.clear()
        self.resumed.set()


class Probe(Connection):
    """A connection that tells when it is lost."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.lost = asyncio.Event()
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost.set()


class Brief(Probe):
    """One whose peers have no time."""

    LINGER: ClassVar[float] = 0.2
    DRAIN: ClassVar[float] = 0.5


class Weighed(Brief):
    """One that tells how much it took, and the most that waited for its peer, in bytes."""

    LINGER: ClassVar[float] = 0.5

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.taken = self.most = 0
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.taken += len(data)
        self.most = max(self.most, self.transport.get_write_buffer_size())


class Patient(Probe):
    """One that no timer ends within a test."""

    LINGER: ClassVar[float] = 10 * WAIT
    DRAIN: ClassVar[float] = 10 * WAIT


class App:
    """Accepts, hands the connections to the test, and keeps what it receives afterwards."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[Any] = asyncio.Queue()
        self.received: asyncio.Queue[Any] = asyncio.Queue()
        self.before: Callable[[Any], Awaitable[object]] | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        connection = scope["extensions"][EXTENSION]["connection"]
        connection.feeder = Flow()
        await receive()
        if self.before is not None:
            self.connections.put_nowait(connection)
            await self.before(send)
        await send({"type": "websocket.accept"})
        self.connections.put_nowait(connection)
        self.received.put_nowait(await receive())


async def lifespan(receive: Any, send: Any) -> None:
    """Starts and stops."""
    for _ in range(2):
        await send({"type": (await receive())["type"] + ".complete"})


@asynccontextmanager
async def serving(kind: type[Connection] = Probe, **changes: Any) -> AsyncIterator[tuple[App, str]]:
    """The app on a socket, with its WebSocket address."""
    app = App()
    async with serving_app(app, ws=kind, **changes) as url:
        yield app, url.replace("http", "ws") + "/stream"


@asynccontextmanager
async def joined(url: str, app: App, **options: Any) -> AsyncIterator[tuple[ClientConnection, Any]]:
    """A client, and the server's side of it."""
    async with connect(url, proxy=None, **options) as client:
        yield client, await app.connections.get()


def head(*fields: str, path: str = "/stream") -> bytes:
    """The request that asks for an upgrade."""
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Upgrade: websocket", "Connection: Upgrade"]
    lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13", *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class Stuck:
    """A client on a socket with small buffers, which reads nothing unless told to."""

    def __init__(self, url: str) -> None:
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.settimeout(WAIT)
        host, _, port = url.removeprefix("ws://").removesuffix("/stream").rpartition(":")
        self.socket.connect((host, int(port)))

    def upgrade(self) -> None:
        """Ask for the upgrade and read its answer to the last byte, no more."""
        self.socket.sendall(head())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.socket.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 "), answer

    def read_exactly(self, size: int) -> bytes:
        """So many bytes; fewer only at the end of the stream."""
        data = b""
        while len(data) < size and (more := self.socket.recv(size - len(data))):
            data += more
        return data

    def read_frame(self) -> tuple[int, bytes]:
        """Opcode and payload of the next frame."""
        first, size = self.read_exactly(2)
        if size == 126:
            size = int.from_bytes(self.read_exactly(2), "big")
        return first & 15, self.read_exactly(size)

    def read_to_close(self) -> tuple[int, str]:
        """Read on to the close frame, and answer it."""
        while (frame := self.read_frame())[0] != Opcode.CLOSE:
            assert frame[0] == Opcode.TEXT
        self.socket.sendall(Frame(Opcode.CLOSE, frame[1]).serialize(mask=True))
        return int.from_bytes(frame[1][:2], "big"), frame[1][2:].decode()


@contextmanager
def stuck(url: str) -> Iterator[Stuck]:
    """A client that does not read."""
    client = Stuck(url)
    with client.socket:
        yield client


@asynccontextmanager
async def filled(url: str, app: App, enough: Callable[[Any], bool]) -> AsyncIterator[tuple[Stuck, Any]]:
    """A client that does not read and the server's side, which has sent it enough."""
    with stuck(url) as client:
        await asyncio.to_thread(client.upgrade)
        connection = await app.connections.get()
        while not enough(connection):
            connection.write(KIBIBYTE)
            await asyncio.sleep(0)
        yield client, connection


def full(url: str, app: App) -> contextlib.AbstractAsyncContextManager[tuple[Stuck, Any]]:
    """So much that it can send no more."""
    return filled(url, app, lambda connection: connection.feeder.paused.is_set())


def loaded(url: str, app: App) -> contextlib.AbstractAsyncContextManager[tuple[Stuck, Any]]:
    """So much that the kernel takes no more; what the client says is still read."""
    return filled(url, app, lambda connection: connection.unsent() > 8 * 1024)


async def ended(client: ClientConnection) -> tuple[int, str]:
    """Code and reason with which the server closes."""
    with contextlib.suppress(ConnectionClosed):
        while True:
            await client.recv()
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


def test_frames_go_out_as_they_are_and_nothing_is_compressed(run: Run[None]) -> None:
    async def body() -> None:
        async with serving() as (app, url), joined(url, app) as (client, connection):
            connection.write(HELLO)
            assert await client.recv() == "hello"
            assert client.protocol.extensions == []
            assert client.response is not None
            assert "sec-websocket-extensions" not in client.response.headers

    run(body())


def test_a_close_is_told_once_to_both_sides(run: Run[None]) -> None:
    async def body() -> None:
        async with serving() as (app, url), joined(url, app) as (client, connection):
            connection.write(HELLO)
            connection.close(4008, "too slow")
            connection.close(1000, "again")
            connection.write(HELLO)
            assert await client.recv() == "hello"
            assert await ended(client) == (4008, "too slow")
            assert await app.received.get() == {"type": "websocket.disconnect", "code": 4008, "reason": "too slow"}
            await connection.lost.wait()
            connection.close(1000)
            connection.write(HELLO)

    run(body())


@pytest.mark.parametrize(
    ("message", "code"),
    [("x", 4400), (b"x", 1003), ("x" * (64 * 1024), 4400), ("x" * (64 * 1024 + 1), 1009), (["a", "b"], 4400)],
    ids=["text", "binary", "64 KiB", "more than 64 KiB", "fragments"],
)
def test_a_message_of_the_peer_ends_the_connection(run: Run[None], message: Any, code: int) -> None:
    async def body() -> None:
        async with serving(Patient) as (app, url), joined(url, app) as (client, connection):
            await client.send(message)
            assert (await ended(client))[0] == code
            assert (await app.received.get())["code"] == code
            await connection.lost.wait()

    run(body())


def test_bad_utf8_and_a_broken_frame_are_told_without_a_traceback(
    run: Run[None], caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        async with serving(Patient) as (app, url):
            for sent, code in ((Frame(Opcode.TEXT, b"\xff").serialize(mask=True), 1007), (HELLO, 1002)):
                with stuck(url) as client:
                    await asyncio.to_thread(client.upgrade)
                    client.socket.sendall(sent)
                    assert (await asyncio.to_thread(client.read_to_close))[0] == code
                    assert await asyncio.to_thread(client.read_exactly, 1) == b""
                await (await app.connections.get()).lost.wait()

    with caplog.at_level(logging.INFO):
        run(body())
    assert [record for record in caplog.records if record.exc_info or "stream" in record.getMessage()] == []


def test_the_feeder_is_paused_while_the_peer_does_not_read(run: Run[None]) -> None:
    async def body() -> None:
        async with serving() as (app, url), full(url, app) as (client, connection):
            waiting = connection.transport.get_write_buffer_size()
            assert 0 < waiting <= 64 * 1024
            reading = asyncio.create_task(asyncio.to_thread(client.read_to_close))
            await connection.feeder.resumed.wait()
            connection.close(1000)
            assert (await reading)[0] == 1000

    run(body())


def test_a_close_reaches_a_peer_that_reads_later(run: Run[None]) -> None:
    async def body() -> None:
        async with serving(Patient) as (app, url), full(url, app) as (client, connection):
            connection.close(4008, "too slow")
            assert (await app.received.get())["code"] == 4008
            assert await asyncio.to_thread(client.read_to_close) == (4008, "too slow")
            assert await asyncio.to_thread(client.read_exactly, 1) == b""
            await connection.lost.wait()

    run(body())


ENDS: dict[str, Callable[[Stuck, Any], object]] = {
    "close": lambda client, connection: connection.close(4008, "too slow"),
    "no pong": lambda client, connection: connection.keepalive_timeout(),
    "text": lambda client, connection: client.socket.sendall(Frame(Opcode.TEXT, b"x").serialize(mask=True)),
    "broken frame": lambda client, connection: client.socket.sendall(HELLO),
    "its own close": lambda client, connection: client.socket.sendall(Frame(Opcode.CLOSE, b"").serialize(mask=True)),
    "end of its half": lambda client, connection: client.socket.shutdown(socket.SHUT_WR),
}


@pytest.mark.parametrize(
    ("state", "how"), [*((loaded, how) for how in ENDS), *((full, how) for how in ("close", "no pong"))]
)
def test_a_peer_that_never_reads_is_gone_after_the_linger(run: Run[None], state: Any, how: str) -> None:
    async def body() -> None:
        async with serving(Brief) as (app, url), state(url, app) as (client, connection):
            began = time.monotonic()
            ENDS[how](client, connection)
            await asyncio.wait_for(connection.lost.wait(), SOON)
            assert time.monotonic() - began >= Brief.LINGER * 0.9
            assert (await app.received.get())["type"] == "websocket.disconnect"

    run(body())


PING = Frame(Opcode.PING, b"x" * 125).serialize(mask=True)
READ = 256 * 1024  # bytes: what the event loops read at once


def ping_on(client: Stuck) -> None:
    """Ping for as long as the server lets us."""
    with contextlib.suppress(ConnectionError):
        while True:
            client.socket.sendall(PING * 1000)


def test_a_peer_that_pings_and_never_reads_takes_little_and_is_ended(
    run: Run[None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What holds it back here is that it does not read, not how much it says.
    monkeypatch.setattr(inward, "MAX_CHATTER", 10**9)

    async def body() -> None:
        async with serving(Weighed, ws_ping_interval=0.2, ws_ping_timeout=0.3) as (app, url):
            with stuck(url) as client:
                await asyncio.to_thread(client.upgrade)
                connection = await app.connections.get()
                flooding = asyncio.create_task(asyncio.to_thread(ping_on, client))
                await asyncio.wait_for(connection.lost.wait(), SOON)
                await flooding
            assert connection.feeder.paused.is_set()
            assert connection.most <= 2 * READ

    run(body())


def test_after_the_end_nothing_is_answered_and_little_is_read(run: Run[None]) -> None:
    async def body() -> None:
        async with serving(Weighed) as (app, url):
            with stuck(url) as client:
                await asyncio.to_thread(client.upgrade)
                connection = await app.connections.get()
                connection.close(4008, "too slow")
                before = connection.taken
                await asyncio.to_thread(ping_on, client)
                await asyncio.wait_for(connection.lost.wait(), SOON)
            assert connection.taken - before <= ENOUGH + READ
            assert connection.most == 0

    run(body())


def test_who_reads_on_is_heard_again(run: Run[None]) -> None:
    def until(client: Stuck, opcode: Opcode) -> bytes:
        while (frame := client.read_frame())[0] != opcode:
            assert frame[0] == Opcode.TEXT
        return frame[1]

    async def body() -> None:
        async with serving(Patient) as (app, url), full(url, app) as (client, connection):
            assert not connection.transport.is_reading()
            client.socket.sendall(PING)
            assert await asyncio.to_thread(until, client, Opcode.PONG) == b"x" * 125
            client.socket.sendall(Frame(Opcode.CLOSE, b"").serialize(mask=True))
            assert await asyncio.to_thread(until, client, Opcode.CLOSE) == b""
            await connection.lost.wait()

    run(body())


def test_who_goes_is_missed_while_nothing_is_read_of_it(run: Run[None]) -> None:
    async def body() -> None:
        async with serving(Patient) as (app, url), full(url, app) as (client, connection):
            client.socket.close()
            await asyncio.wait_for(connection.lost.wait(), SOON)
            assert (await app.received.get())["type"] == "websocket.disconnect"

    run(body())


def test_a_feeder_that_comes_after_the_pause_is_told(run: Run[None]) -> None:
    async def body() -> None:
        async with serving(Brief) as (app, url), full(url, app) as (_, connection):
            connection.feeder = Flow()
            connection.write(HELLO)
            assert connection.feeder.paused.is_set()

    run(body())


def test_reading_is_as_good_as_a_pong(run: Run[None]) -> None:
    """A snapshot may take longer than a ping may: its pong is not heard before it has been sent."""

    async def body() -> None:
        async with serving(Patient) as (app, url), full(url, app) as (client, connection):
            connection.write(KIBIBYTE * 1024)
            connection.stop_keepalive()
            connection.send_keepalive_ping()
            before = connection.unsent()
            await asyncio.to_thread(client.read_exactly, 512 * 1024)
            while connection.unsent() >= before:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0)
            connection.keepalive_timeout()
            assert not connection.close_sent
            assert connection.feeder.paused.is_set()
            connection.stop_keepalive()
            connection.send_keepalive_ping()
            connection.keepalive_timeout()
            assert (await app.received.get())["code"] == 1011
            connection.transport.abort()

    run(body())


UNFINISHED = {
    "text": ([Frame(Opcode.TEXT, b"a", fin=False)], 4400),
    "text within a character": ([Frame(Opcode.TEXT, b"\xe2", fin=False)], 4400),
    "binary": ([Frame(Opcode.BINARY, b"a", fin=False)], 1003),
    "without end": ([Frame(Opcode.TEXT, b"", fin=False), *[Frame(Opcode.CONT, b"", fin=False)] * 1000], 4400),
    "too big as a whole": ([Frame(code, b"x" * 40_000, fin=False) for code in (Opcode.TEXT, Opcode.CONT)], 4400),
    "too big at once": ([Frame(Opcode.TEXT, b"x" * (server.MAX_MESSAGE + 1), fin=False)], 1009),
}


@pytest.mark.parametrize(("frames", "code"), UNFINISHED.values(), ids=UNFINISHED)
def test_the_first_frame_of_a_message_ends_the_connection(run: Run[None], frames: list[Frame], code: int) -> None:
    async def body() -> None:
        async with serving(Patient) as (app, url):
            with stuck(url) as client:
                await asyncio.to_thread(client.upgrade)
                client.socket.sendall(b"".join(frame.serialize(mask=True) for frame in frames))
                assert (await asyncio.to_thread(client.read_to_close))[0] == code
                assert await asyncio.to_thread(client.read_exactly, 1) == b""
            await (await app.connections.get()).lost.wait()
            assert (await app.received.get())["code"] == code

    run(body())


def test_an_application_that_waits_for_a_stuck_peer_is_released(run: Run[None]) -> None:
    async def body() -> None:
        async with serving(Patient) as (app, url), full(url, app) as (_, connection):
            sending = asyncio.create_task(connection.send({"type": "websocket.send", "text": "x"}))
            await asyncio.sleep(0)
            assert not sending.done()
            connection.close(4008, "too slow")
            with pytest.raises(ClientDisconnected):
                await asyncio.wait_for(sending, SOON)
            connection.transport.abort()

    run(body())


def test_the_end_of_the_application_is_the_end_of_the_connection(run: Run[None]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send)
            return
        await receive()
        if scope["path"] == "/refuses":
            await send({"type": "websocket.http.response.start", "status": 404, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"{}"})
            return
        await send({"type": "websocket.accept"})
        if scope["path"] == "/closes":
            await send({"type": "websocket.close", "code": 4404, "reason": "no more"})
        if scope["path"] == "/fails":
            raise LookupError("on purpose")

    async def body() -> None:
        async with serving_app(app) as http:
            url = http.replace("http", "ws")
            for path, code in (("/returns", 1000), ("/closes", 4404), ("/fails", 4500)):
                async with connect(url + path, proxy=None) as client:
                    assert (await ended(client))[0] == code
            with pytest.raises(InvalidStatus) as refused:
                await connect(url + "/refuses", proxy=None)
            assert (refused.value.response.status_code, refused.value.response.body) == (404, b"{}")

    run(body())


@pytest.mark.parametrize(
    ("request_head", "status"),
    [
        (head().replace(b"Version: 13", b"Version: 12"), 400),
        (head(*(f"X-{n}: 1" for n in range(200))), 431),
        (head(path="/" + "x" * 9000), 414),
    ],
    ids=["version", "many fields", "long target"],
)
def test_a_bad_handshake_is_refused_with_a_problem(run: Run[None], request_head: bytes, status: int) -> None:
    async def body() -> None:
        async with serving(Patient) as (_, url):
            with stuck(url) as client:
                client.socket.sendall(request_head)
                told_head, _, told = (await asyncio.to_thread(client.read_exactly, 10_000)).partition(b"\r\n\r\n")
            assert told_head.startswith(b"HTTP/1.1 %d " % status), told_head
            assert b"application/problem+json" in told_head
            assert json.loads(told)["status"] == status

    run(body())


def test_before_the_upgrade_a_close_is_a_refusal(run: Run[None]) -> None:
    async def body() -> None:
        async with serving(Patient) as (app, url):
            never = asyncio.Event()
            app.before = lambda send: never.wait()
            for end in ("close", "shutdown", "data"):
                with stuck(url) as client:
                    client.socket.sendall(head())
                    connection = await app.connections.get()
                    connection.write(HELLO)
                    if end == "close":
                        connection.close(1012, "not now")
                    elif end == "shutdown":
                        connection.shutdown()
                    else:
                        client.socket.sendall(Frame(Opcode.PING, b"").serialize(mask=True))
                    answer = await asyncio.to_thread(client.read_exactly, 10_000)
                    assert answer.startswith(b"HTTP/1.1 400 " if end == "data" else b"HTTP/1.1 503 "), answer
                    assert (b"Retry-After: 1" in answer) == (end != "data")
                    await connection.lost.wait()
            never.set()

    run(body())


def test_accepted_sockets_have_the_bounds_of_the_listener(run: Run[None]) -> None:
    async def body() -> None:
        async with serving() as (app, url), joined(url, app) as (_, connection):
            accepted = connection.transport.get_extra_info("socket")
            # Linux tells twice what was asked for, its own bookkeeping included.
            assert server.SEND_BUFFER <= accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) <= 2 * 65536
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            if sys.platform == "linux":
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == server.USER_TIMEOUT_MS

    run(body())


class Drained(Patient):
    """One that only the end of the drain ends."""

    DRAIN: ClassVar[float] = 0.5


def test_a_drain_tells_readers_to_reconnect_and_does_not_wait_for_others(run: Run[None]) -> None:
    async def body() -> None:
        async with contextlib.AsyncExitStack() as clients, contextlib.AsyncExitStack() as service:
            app, url = await service.enter_async_context(serving(Drained, timeout_graceful_shutdown=10 * WAIT))
            reader, _ = await clients.enter_async_context(joined(url, app))
            await clients.enter_async_context(full(url, app))
            leaving = asyncio.create_task(service.aclose())
            assert await ended(reader) == (1012, RESTARTING)
            await asyncio.wait_for(leaving, SOON)

    run(body())


class Spread(Patient):
    """One whose closes are easily told apart."""

    SPREAD: ClassVar[float] = 0.5
    SPREAD_PER_CONNECTION: ClassVar[float] = 1.0


def test_the_closes_of_a_drain_are_spread(run: Run[None]) -> None:
    async def told(client: ClientConnection) -> float:
        assert await ended(client) == (1012, RESTARTING)
        return time.monotonic()

    async def body() -> None:
        async with contextlib.AsyncExitStack() as clients, contextlib.AsyncExitStack() as service:
            app, url = await service.enter_async_context(serving(Spread))
            opened = [(await clients.enter_async_context(joined(url, app)))[0] for _ in range(20)]
            leaving = asyncio.create_task(service.aclose())
            moments = await asyncio.gather(*map(told, opened))
            await leaving
            assert max(moments) - min(moments) > 0.05

    run(body())


def test_the_drain_ends_before_the_grace() -> None:
    assert Connection.SPREAD < Connection.DRAIN < server.GRACE_SECONDS


# A service with this module's applications, as a process of its own.

PROGRAM = """
import logging, sys
from klines import logs, server
logs.configure("info")
app, workers, grace = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with server.listen("127.0.0.1", 0) as listener:
    config = server.config(app, factory=True, workers=workers, timeout_graceful_shutdown=grace)
    print("port", listener.getsockname()[1], file=sys.stderr, flush=True)
    if workers > 1:
        server.Supervisor(config, sockets=[listener]).run()
    else:
        server.Server(config).run(sockets=[listener])
"""
FULL = "a peer does not read"
HANGING = "a request hangs"
# Known here, so that what waits for it is not collected as garbage.
NEVER = asyncio.Event()


async def flood(scope: Any, receive: Any, send: Any) -> None:
    """Sends until the peer's buffers are full, says so, and waits to be disconnected."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
        return
    connection = scope["extensions"][EXTENSION]["connection"]
    connection.feeder = flow = Flow()
    await receive()
    await send({"type": "websocket.accept"})
    while not flow.paused.is_set():
        connection.write(KIBIBYTE)
        await asyncio.sleep(0)
    logging.getLogger("klines").warning(FULL)
    await receive()


async def hang(scope: Any, receive: Any, send: Any) -> None:
    """Never answers a request, and starts but never stops."""
    if scope["type"] == "lifespan":
        await send({"type": (await receive())["type"] + ".complete"})
    else:
        logging.getLogger("klines").warning(HANGING)
    await NEVER.wait()


def flooding() -> Any:
    """Makes the first of them in a server process, which sets up its own log."""
    logs.configure("info")
    return flood


def hanging() -> Any:
    """Makes the second."""
    logs.configure("info")
    return hang


@contextmanager
def program(app: str, workers: int, grace: int) -> Iterator[tuple[Service, str]]:
    """Serve an application of this module; its address."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, f"{__name__}:{app}", str(workers), str(grace)],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        cwd=Path(__file__).parents[2],
    )
    running = Service(process)
    try:
        port = running.wait_for(lambda line: line.startswith("port ")).split()[1]
        for _ in range(workers):
            running.wait_for(lambda line: "startup complete" in line)
        yield running, f"ws://127.0.0.1:{port}/stream"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(DEADLINE)
        assert process.stderr is not None
        process.stderr.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_service_with_a_stuck_reader_leaves_within_the_grace(workers: int) -> None:
    with program("flooding", workers, server.GRACE_SECONDS) as (running, url), stuck(url) as client:
        client.upgrade()
        running.wait_for(lambda line: FULL in line)
        began = time.monotonic()
        assert running.stop() in {0, -signal.SIGTERM}
        assert time.monotonic() - began < server.GRACE_SECONDS + 0.6
        assert "exceeded" not in running.log
        assert "shutdown complete" in running.log
        assert "Traceback" not in running.log


@pytest.mark.parametrize("workers", [1, 2])
def test_a_second_signal_leaves_at_once(workers: int) -> None:
    with program("hanging", workers, 10 * DEADLINE) as (running, url), stuck(url) as client:
        client.socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        running.wait_for(lambda line: HANGING in line)
        running.process.send_signal(signal.SIGTERM)
        running.wait_for(lambda line: "Waiting for connections to close" in line)
        assert running.stop() in {0, -signal.SIGTERM}


def test_a_parent_ends_children_that_do_not_leave() -> None:
    with program("hanging", 2, 1) as (running, _):
        children = psutil.Process(running.process.pid).children(recursive=True)
        assert running.stop() == 0
        assert psutil.wait_procs(children, timeout=WAIT)[1] == []
        assert "2 server processes did not leave in time" in running.log


def test_the_limit_of_open_files_is_raised_or_told(caplog: pytest.LogCaptureFixture) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[1]), before[1]))
        server.allow_open_files(0)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == before[1]
        assert caplog.messages == []
        server.allow_open_files(before[1])
        assert len(caplog.messages) == 1
        assert f"MAX_CONNECTIONS {before[1]} does not fit" in caplog.messages[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
