"""What a connection may take before any upgrade: bytes, time, requests at once; and how it is told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
import uvloop

from klines import server
from klines.web.transport import http, room
from klines.web.transport.edge import Refused
from klines.web.transport.http import MAX_HEAD, MAX_PIPELINED, Http
from tests.application import serving_app

Run = Callable[[Any], None]
WAIT = 10
BIG = 8 * 1024 * 1024
HELLO = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"


@pytest.fixture
def run() -> Iterator[Run]:
    """Runs a coroutine in the event loop that the service has."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield lambda coroutine: runner.run(asyncio.wait_for(coroutine, 60))


class Brief(Http):
    """One whose peers have no time."""

    BEGIN: ClassVar[float] = 0.3
    HEAD: ClassVar[float] = 0.3
    BODY: ClassVar[float] = 0.3
    TAKEN: ClassVar[float] = 0.3


class Shortly(Http):
    """One that keeps a place for health checks not for long."""

    KEPT: ClassVar[float] = 0.3


class App:
    """Answers at once, or as `/wait` when it is let; `/read` reads the body first, `/big` has a big one."""

    def __init__(self) -> None:
        self.served = 0
        self.let = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for _ in range(2):
                await send({"type": (await receive())["type"] + ".complete"})
            return
        self.served += 1
        if scope["path"] == "/wait":
            await self.let.wait()
        if scope["path"] == "/read":
            while (event := await receive())["type"] == "http.request" and event["more_body"]:
                pass
        body = b"x" * BIG if scope["path"] == "/big" else b"hello"
        length = (b"content-length", str(len(body)).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


class Peer:
    """A client that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """What comes until the end."""
        async with asyncio.timeout(WAIT):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
            return b""

    async def dribble(self, byte: bytes) -> bytes:
        """Say it on and on; what comes until the end."""
        heard = asyncio.create_task(self.rest())
        with contextlib.suppress(ConnectionError):
            while not heard.done():
                self.say(byte)
                await asyncio.wait({heard}, timeout=0.02)
        return await heard


@asynccontextmanager
async def serving(
    kind: type[Http] = Http, *, app: App | None = None, **changes: Any
) -> AsyncIterator[tuple[App, Callable[[], Any]]]:
    """The app, and what connects to it."""
    app = app or App()

    @asynccontextmanager
    async def connected() -> AsyncIterator[Peer]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield Peer(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async with serving_app(app, http=kind, **changes) as url:
        port = int(url.rpartition(":")[2])
        try:
            yield app, connected
        finally:
            app.let.set()


def refused(answer: bytes, status: int, code: str) -> None:
    """Whether this is one answer, a problem, after which the connection ends."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer[:200]
    for field in (b"Content-Type: application/problem+json", b"Connection: close", b"x-content-type-options: nosniff"):
        assert field in head
    problem = json.loads(body)
    assert (problem["status"], problem["code"]) == (status, code)


FLOODS = {
    "fields": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 200, 431, "headers_too_large"),
    "a long field": (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * MAX_HEAD, 431, "headers_too_large"),
    "a long name": (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"b" * MAX_HEAD, 431, "headers_too_large"),
    "a long target": (b"GET /" + b"b" * (8 * 1024), 414, "uri_too_long"),
    "empty lines": (b"\r\n" * MAX_HEAD, 431, "headers_too_large"),
    "too many fields, but complete": (
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 100 + b"\r\n",
        431,
        "headers_too_large",
    ),
    "no HTTP": (b"hello\r\n\r\n", 400, "request_invalid"),
    "two lengths": (HELLO[:-2] + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400, "request_invalid"),
    "trailers": (
        POST.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked") + b"0\r\nA: " + b"b" * 99_999,
        431,
        "headers_too_large",
    ),
    "a long chunk size": (
        POST.replace(b"Content-Length: 100", b"Transfer-Encoding: chunked") + b"1;" + b"b" * 99_999,
        431,
        "headers_too_large",
    ),
}


@pytest.mark.parametrize("case", FLOODS)
def test_too_much_is_refused_while_it_arrives(run: Run, case: str) -> None:
    said, status, code = FLOODS[case]

    async def body() -> None:
        async with serving() as (app, connected), connected() as peer:
            peer.say(said.replace(b"POST /", b"POST /wait"))
            refused(await peer.rest(), status, code)
            assert app.served == (said.startswith(b"POST"))

    run(body())


def test_a_head_may_come_in_pieces_and_be_almost_as_long(run: Run) -> None:
    async def body() -> None:
        async with serving() as (app, connected), connected() as peer:
            end = b"\r\nConnection: close\r\n\r\n"
            begin = HELLO[:-2] + b"A: "
            head = begin + b"b" * (MAX_HEAD - 1 - len(begin + end)) + end
            for start in range(0, len(head), 1000):
                peer.say(head[start : start + 1000])
                await peer.writer.drain()
            assert (await peer.rest()).startswith(b"HTTP/1.1 200 ")
            assert app.served == 1

    run(body())


SLOW = {
    "nothing": (b"", b"", 0, ""),
    "a head": (b"GET / HTTP/1.1\r\n", b"A", 408, "head_too_slow"),
    "empty lines": (b"", b"\r\n", 408, "head_too_slow"),
    "a body that is read": (POST.replace(b" /", b" /read", 1), b"x", 408, "body_too_slow"),
    "a body that is not": (POST.replace(b" /", b" /wait", 1), b"x", 408, "body_too_slow"),
    "nothing of a body": (POST.replace(b" /", b" /read", 1), b"", 408, "body_too_slow"),
    "after an answer": (HELLO, b"\r\n", 408, "head_too_slow"),
}


@pytest.mark.parametrize("case", SLOW)
def test_who_is_slow_is_told_and_closed(run: Run, case: str) -> None:
    said, dribbled, status, code = SLOW[case]

    async def body() -> None:
        async with serving(Brief) as (_, connected), connected() as peer:
            began = time.monotonic()
            peer.say(said)
            if case == "after an answer":
                await peer.reader.readuntil(b"hello")
            answer = await peer.dribble(dribbled) if dribbled else await peer.rest()
            assert 0.25 < time.monotonic() - began < 5
            if status:
                refused(answer, status, code)
            else:
                assert answer == b""

    run(body())


def test_a_body_that_comes_after_its_answer_ends_the_connection(run: Run) -> None:
    async def body() -> None:
        async with serving(Brief) as (_, connected), connected() as peer:
            peer.say(POST)
            answer = await peer.dribble(b"x")
            assert answer.count(b"HTTP/1.1") == 1
            assert answer.endswith(b"hello")

    run(body())


@pytest.mark.parametrize("chunked", [False, True], ids=["a length", "chunks"])
def test_a_body_may_be_larger_than_a_head(run: Run, chunked: bool) -> None:
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 100000"
    sent = b"1\r\nx\r\n" * 100_000 + b"0\r\n\r\n" if chunked else b"x" * 100_000

    async def body() -> None:
        async with serving() as (_, connected), connected() as peer:
            for _ in range(2):
                peer.say(POST.replace(b" /", b" /read", 1).replace(b"Content-Length: 100", framing) + sent)
                await peer.reader.readuntil(b"hello")

    run(body())


def test_a_body_in_time_is_served_and_the_connection_goes_on(run: Run) -> None:
    async def body() -> None:
        async with serving() as (app, connected), connected() as peer:
            for path in (b" /read", b" /", b" /read"):
                peer.say(POST.replace(b" /", path, 1))
                peer.say(b"x" * 100)
                await peer.reader.readuntil(b"hello")
            assert app.served == 3

    run(body())


def watched(lost: asyncio.Event) -> type[Http]:
    """A brief connection that tells when it is lost."""

    class Watched(Brief):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            lost.set()

    return Watched


def test_who_does_not_read_an_answer_is_reset(run: Run) -> None:
    async def body() -> None:
        lost = asyncio.Event()
        async with serving_app(App(), http=watched(lost)) as url:
            with socket.socket() as stuck:
                stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                stuck.connect(("127.0.0.1", int(url.rpartition(":")[2])))
                stuck.sendall(HELLO.replace(b" /", b" /big", 1))
                # Before the kernel itself drops a peer that acknowledges nothing.
                await asyncio.wait_for(lost.wait(), server.USER_TIMEOUT_MS / 2000)

    run(body())


def test_who_reads_slowly_but_reads_gets_all(run: Run) -> None:
    class Strict(Brief):
        LEAST: ClassVar[int] = 1024

    async def body() -> None:
        async with serving(Strict) as (_, connected), connected() as peer:
            peer.say(HELLO.replace(b" /", b" /big", 1))
            head = await peer.reader.readuntil(b"\r\n\r\n")
            got = 0
            began = time.monotonic()
            while got < BIG:
                got += len(await peer.reader.read(1024 * 1024))
                await asyncio.wait({asyncio.ensure_future(asyncio.Event().wait())}, timeout=0.03)
            assert head.startswith(b"HTTP/1.1 200 ")
            assert time.monotonic() - began > 2 * Brief.TAKEN

    run(body())


def test_a_flood_of_requests_is_served_to_a_bound(run: Run) -> None:
    async def body() -> None:
        async with serving() as (app, connected), connected() as peer:
            peer.say(HELLO.replace(b" /", b" /wait", 1) + HELLO * 5_000)
            await asyncio.wait_for(poll(lambda: app.served == 1), WAIT)
            app.let.set()
            answers = await peer.rest()
            assert answers.count(b"HTTP/1.1 200 ") == app.served == MAX_PIPELINED + 1
            assert answers.count(b"connection: close") == 1

    run(body())


async def poll(true: Callable[[], bool]) -> None:
    """Until it is so: for what tells nobody."""
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0)


def test_what_is_wrong_after_a_request_does_not_take_its_answer(run: Run) -> None:
    async def body() -> None:
        async with serving() as (app, connected), connected() as peer:
            peer.say(HELLO.replace(b" /", b" /wait", 1) + b"nonsense\r\n\r\n")
            await asyncio.wait_for(poll(lambda: app.served == 1), WAIT)
            app.let.set()
            answers = await peer.rest()
            assert answers.startswith(b"HTTP/1.1 200 ")
            assert answers.endswith(b"hello")

    run(body())


def test_beyond_the_bound_a_connection_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "MAX_PLAIN", 2)

    async def body() -> None:
        async with serving(Shortly) as (app, connected), connected() as first, connected():
            for said in (b"", HELLO):
                async with connected() as third:
                    third.say(said)
                    answer = await third.rest()
                    refused(answer, 503, "connections_exhausted")
                    assert b"Retry-After: 1\r\n" in answer
            assert app.served == 0
            for path in (b" /health/ready", b" /metrics"):
                async with connected() as third:
                    third.say(HELLO.replace(b" /", path, 1) + HELLO)
                    answers = await third.rest()
                    assert answers.startswith(b"HTTP/1.1 200 "), "health is told, and nothing after it"
                    assert answers.count(b"HTTP/1.1") == 1
            first.say(HELLO.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            assert (await first.rest()).endswith(b"hello")
            async with connected() as fourth:
                fourth.say(HELLO)
                await fourth.reader.readuntil(b"hello")

    run(body())


class Shared(App):
    """One that gives each address a share, and remembers what it was told."""

    def __init__(self, share: str | None) -> None:
        super().__init__()
        self.edge = self
        self.told: list[Refused] = []
        self._share = share

    def share(self, peer: str) -> str | None:
        assert peer == "127.0.0.1"
        return self._share

    def refused(self, refused: Refused) -> None:
        self.told.append(refused)


@pytest.mark.parametrize("share", ["one client", None], ids=["a client", "a trusted proxy"])
def test_a_client_has_its_share_and_then_health_only(
    run: Run, monkeypatch: pytest.MonkeyPatch, share: str | None
) -> None:
    monkeypatch.setattr(room, "MAX_EACH", 3)
    monkeypatch.setattr(room, "KEPT_EACH", 1)

    async def body() -> None:
        app = Shared(share)
        async with serving(Shortly, app=app) as (_, connected), connected(), connected() as second, connected() as one:
            one.say(HELLO)
            await one.reader.readuntil(b"hello")
            async with connected() as kept, connected() as over:
                for peer in (over, kept):
                    peer.say(HELLO.replace(b" /", b" /health/live", 1))
                if share is None:
                    await asyncio.gather(kept.reader.readuntil(b"hello"), over.reader.readuntil(b"hello"))
                    return
                refused(await over.rest(), 429, "client_connections_exhausted")
                assert (await kept.rest()).endswith(b"hello")
            async with connected() as kept:
                kept.say(HELLO.replace(b"\r\n\r\n", b"\r\nX-Request-ID: mine\r\n\r\n"))
                answer = await kept.rest()
                refused(answer, 429, "client_connections_exhausted")
                assert b"X-Request-ID: mine\r\n" in answer
            assert app.told[-1] == Refused(429, "client_connections_exhausted", "mine", "127.0.0.1")
            second.writer.close()
            await second.rest()
            async with connected() as again:
                again.say(HELLO)
                await again.reader.readuntil(b"hello")

    run(body())


def test_there_is_room_for_what_the_limit_of_open_files_allows(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "open_files", lambda: 4)

    async def body() -> None:
        async with serving(Shortly) as (_, connected), connected(), connected(), connected() as third:
            refused(await third.rest(), 503, "connections_exhausted")

    run(body())


def test_times_leave_the_route_the_first_word() -> None:
    from klines.web.body import BODY_SECONDS  # noqa: PLC0415 - what is compared

    assert http.Http.BODY > BODY_SECONDS
