"""A TCP proxy that breaks connections on purpose, between service and PostgreSQL or between client and service.

It runs in a thread with an event loop of its own. Its operations are synchronous, safe from any thread, and have
happened when they return; a test's own event loop may call them, as they wait only for the proxy's thread.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

DEADLINE = 30
CHUNK = 65536
MAX_OPEN = 1000
BACKLOG = 128
POSTGRES_PORT = 5432
RESET = struct.pack("ii", 1, 0)
T = TypeVar("T")

Address = tuple[str, int] | str
Judge = Callable[[object, bytes, bool], bool]
"""Of a connection and a piece that is about to be carried, upward to the upstream or not: is the connection reset?"""


@dataclass
class _Faults:
    """What is broken now, for all connections."""

    swallows: bool = False
    delay: float = 0.0
    resets: Judge | None = None


class Proxy:
    """Accepts on a loopback port of its own and carries bytes to and from `upstream`: (host, port) or a socket's path.

    At most `MAX_OPEN` connections are open; one more is reset. Everything is closed when the context ends.
    """

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._thread = threading.Thread(target=self._run, name="fault proxy", daemon=True)
        self._accepts = False
        self._links: set[_Link] = set()
        self._started: Future[None] = Future()
        self._faults = _Faults()
        self.port = 0
        self.count = 0

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(DEADLINE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the proxy does not end"

    @property
    def address(self) -> tuple[str, int]:
        """Where clients connect."""
        return "127.0.0.1", self.port

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._links)

    def cut(self) -> None:
        """Reset every open connection on both sides; new ones are accepted."""
        self._do(self._cut)

    def refuse(self) -> None:
        """Refuse new connections; open ones go on."""
        self._do(self._refuse)

    def blackhole(self) -> None:
        """Swallow every byte in both directions, of open connections and of new ones, and close nothing."""
        self._do(self._blackhole)

    def delay(self, seconds: float) -> None:
        """Carry each piece of up to 64 KiB this much later, in each direction; 0: at once."""
        self._do(lambda: self._set_delay(seconds))

    def reset_when(self, judge: Judge | None) -> None:
        """Ask about each piece, in the proxy's thread, whether to reset its connection instead; None: carry all."""
        self._faults.resets = judge

    def restore(self) -> None:
        """Work again, on the same port; connections that lost bytes are reset, as TCP never leaves a gap."""
        self._do(self._restore)

    async def connected(self, count: int) -> None:
        """Wait in a test's event loop until `count` connections have been accepted in all."""
        await asyncio.wrap_future(self._submit(self._until(lambda: self.count >= count)))

    async def disconnected(self, left: int = 0) -> None:
        """Wait in a test's event loop until at most `left` connections are open."""
        await asyncio.wrap_future(self._submit(self._until(lambda: len(self._links) <= left)))

    def wait_connected(self, count: int) -> None:
        """Wait in a synchronous test until `count` connections have been accepted in all."""
        self._submit(self._until(lambda: self.count >= count)).result(DEADLINE)

    def wait_disconnected(self, left: int = 0) -> None:
        """Wait in a synchronous test until at most `left` connections are open."""
        self._submit(self._until(lambda: len(self._links) <= left)).result(DEADLINE)

    # From here on everything runs in the proxy's thread.

    def _submit(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def _do(self, operation: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._submit(operation()).result(DEADLINE)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._over = asyncio.Event()
        self._changed = asyncio.Event()
        try:
            self._bind()
            self._listen()
        except OSError as error:
            self._listening.close()
            self._started.set_exception(error)
            return
        self._started.set_result(None)
        await self._over.wait()
        self._loop.remove_reader(self._listening)
        self._listening.close()
        await self._cut()

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE):
            while not reached():
                await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _bind(self) -> None:
        # Bound without listening, the port refuses connections and nobody else can take it.
        self._listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.setblocking(False)
        self._listening.bind(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]

    def _listen(self) -> None:
        self._listening.listen(BACKLOG)
        self._loop.add_reader(self._listening, self._accept)
        self._accepts = True

    def _accept(self) -> None:
        try:
            client, _ = self._listening.accept()
        except (BlockingIOError, ConnectionError):
            return
        client.setblocking(False)
        self.count += 1
        if len(self._links) >= MAX_OPEN:
            _reset(client)
            return
        link = _Link(client, self._faults)
        self._links.add(link)
        link.task = self._loop.create_task(link.carry(self._upstream))
        # Not a finally of the task: one that is cancelled before its first step runs none.
        link.task.add_done_callback(lambda _: self._forget(link))
        self._tell()

    def _forget(self, link: _Link) -> None:
        link.end()
        self._links.discard(link)
        self._tell()

    async def _cut(self) -> None:
        await self._drop(self._links)

    async def _drop(self, links: set[_Link]) -> None:
        tasks = [link.task for link in links if link.task]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refuse(self) -> None:
        if self._accepts:
            self._accepts = False
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._bind()

    async def _blackhole(self) -> None:
        self._faults.swallows = True

    async def _set_delay(self, seconds: float) -> None:
        self._faults.delay = seconds

    async def _restore(self) -> None:
        self._faults.swallows = False
        self._faults.delay = 0.0
        await self._drop({link for link in self._links if link.gap})
        if not self._accepts:
            self._listen()


class _Link:
    """One connection through the proxy; `gap` says that it lost bytes."""

    def __init__(self, client: socket.socket, faults: _Faults) -> None:
        self._client = client
        self._server: socket.socket | None = None
        self._faults = faults
        self.task: asyncio.Task[None] | None = None
        self.gap = False
        self._complete = False

    async def carry(self, upstream: Address) -> None:
        """Carry bytes until both sides have said all; ended in any other way, both sides are to be reset."""
        try:
            self._server = await self._connect(upstream)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(self._client, self._server))
                both.create_task(self._pump(self._server, self._client))
            self._complete = True
        except* OSError:
            pass

    def end(self) -> None:
        """Close both sides."""
        for end in (self._client, self._server):
            if end is not None and self._complete:
                end.close()
            elif end is not None:
                _reset(end)

    async def _connect(self, upstream: Address) -> socket.socket:
        if self._faults.swallows:
            await self._lose()
        family = socket.AF_UNIX if isinstance(upstream, str) else socket.AF_INET
        self._server = socket.socket(family, socket.SOCK_STREAM)
        self._server.setblocking(False)
        await asyncio.get_running_loop().sock_connect(self._server, upstream)
        for end in (self._client, self._server):
            if end.family == socket.AF_INET:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._server

    async def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while piece := await self._receive(source):
            if self._faults.delay:
                await asyncio.sleep(self._faults.delay)
            if self._faults.resets is not None and self._faults.resets(self, piece, source is self._client):
                raise ConnectionResetError
            if self._faults.swallows:
                self.gap = True
            else:
                await loop.sock_sendall(sink, piece)
        sink.shutdown(socket.SHUT_WR)

    async def _receive(self, source: socket.socket) -> bytes:
        try:
            piece = await asyncio.get_running_loop().sock_recv(source, CHUNK)
        except OSError:
            if not self._faults.swallows:
                raise
            piece = b""
        if not piece and self._faults.swallows:
            await self._lose()
        return piece

    async def _lose(self) -> None:
        # An end or a reset is swallowed as the bytes are: only a cut or the restoring ends this connection.
        self.gap = True
        await asyncio.Event().wait()


def _reset(end: socket.socket) -> None:
    with suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    end.close()


def upstream_of(url: str) -> Address:
    """Where the PostgreSQL of a database URL listens: one host and port, or its Unix socket."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    host = query.get("host") or parts.hostname or "127.0.0.1"
    port = int(query.get("port") or parts.port or POSTGRES_PORT)
    return f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)


def through(proxy: Proxy, url: str) -> str:
    """The database URL with its server replaced by the proxy; user, password, database and options stay."""
    parts = urlsplit(url)
    options = [(name, value) for name, value in parse_qsl(parts.query) if name not in {"host", "port"}]
    user, at, _ = parts.netloc.rpartition("@")
    host, port = proxy.address
    place = f"{parts.scheme}://{user}{at}{host}:{port}{parts.path}"
    return f"{place}?{urlencode(options)}" if options else place
