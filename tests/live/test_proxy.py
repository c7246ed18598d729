"""The fault proxy does what its name says, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests.live.proxy import Proxy, through, upstream_of
from tests.servers import Database

DEADLINE = 20
SILENCE = 0.2  # how long nothing must come: a wrong answer fails, a slow machine does not


@pytest.fixture
async def echo() -> AsyncIterator[tuple[str, int]]:
    """A server that sends back what it gets."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(65536):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()
    server.close()


@pytest.fixture
def proxy(echo: tuple[str, int]) -> Iterator[Proxy]:
    with Proxy(echo) as opened:
        yield opened


@pytest.fixture
async def client(proxy: Proxy) -> AsyncIterator[Client]:
    """A connection through the proxy that has carried bytes already."""
    opened = await Client.connect(proxy)
    assert await opened.ask(b"ready") == b"ready"
    yield opened
    opened.close()


class Client:
    """A raw connection to the proxy."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    async def connect(cls, proxy: Proxy) -> Client:
        end = socket.socket()
        end.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(end, proxy.address)
        except OSError:
            end.close()
            raise
        return cls(end)

    async def send(self, message: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._end, message)

    async def receive(self, seconds: float = DEADLINE) -> bytes:
        async with asyncio.timeout(seconds):
            return await asyncio.get_running_loop().sock_recv(self._end, 65536)

    async def ask(self, message: bytes, seconds: float = DEADLINE) -> bytes:
        await self.send(message)
        return await self.receive(seconds)

    def close(self) -> None:
        self._end.close()


async def test_it_carries_bytes_and_the_end_of_each_side(proxy: Proxy, client: Client) -> None:
    message = bytes(range(256)) * 4000
    reader, writer = await asyncio.open_connection(*proxy.address)
    writer.write(message)
    writer.write_eof()
    async with asyncio.timeout(DEADLINE):
        assert await reader.read() == message
    writer.close()
    await writer.wait_closed()
    await proxy.connected(2)
    await proxy.disconnected(left=1)
    assert (proxy.count, proxy.open) == (2, 1)
    client.close()
    await proxy.disconnected()


async def test_cut_resets_what_is_open_and_accepts_again(proxy: Proxy, client: Client) -> None:
    proxy.cut()
    assert proxy.open == 0
    with pytest.raises(ConnectionResetError):
        await client.receive()
    again = await Client.connect(proxy)
    assert await again.ask(b"again") == b"again"
    again.close()


async def test_refuse_spares_what_is_open_until_restore(proxy: Proxy, client: Client) -> None:
    port = proxy.port
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await Client.connect(proxy)
    assert await client.ask(b"still") == b"still"
    proxy.restore()
    assert proxy.port == port
    again = await Client.connect(proxy)
    assert await again.ask(b"again") == b"again"
    again.close()


async def test_blackhole_swallows_and_restore_resets_what_lost_bytes(proxy: Proxy, client: Client) -> None:
    spared = await Client.connect(proxy)
    assert await spared.ask(b"ready") == b"ready"
    proxy.blackhole()
    fresh = await Client.connect(proxy)
    for swallowed in (client, fresh):
        with pytest.raises(TimeoutError):
            await swallowed.ask(b"lost", SILENCE)
    assert proxy.open == 3
    proxy.restore()
    for swallowed in (client, fresh):
        with pytest.raises(ConnectionResetError):
            await swallowed.receive()
        swallowed.close()
    assert await spared.ask(b"again") == b"again"
    spared.close()


async def test_an_end_does_not_pass_a_blackhole(proxy: Proxy, client: Client) -> None:
    proxy.blackhole()
    client.close()
    await proxy.connected(1)
    assert proxy.open == 1
    proxy.cut()
    await proxy.disconnected()


async def test_delay_holds_bytes_back(proxy: Proxy, client: Client) -> None:
    loop = asyncio.get_running_loop()
    proxy.delay(SILENCE)
    began = loop.time()
    assert await client.ask(b"slow") == b"slow"
    assert loop.time() - began >= 2 * SILENCE
    proxy.restore()
    assert await client.ask(b"fast", SILENCE) == b"fast"


def test_an_upstream_that_is_away_resets_the_client() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with Proxy(nobody.getsockname()) as proxy:
            with socket.socket() as client, pytest.raises(ConnectionResetError):
                # The reset may meet the connecting or the reading.
                client.settimeout(DEADLINE)
                client.connect(proxy.address)
                client.recv(1)
            proxy.wait_disconnected()
            assert proxy.count == 1


def test_it_ends_with_everything_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        with Proxy(listening.getsockname()) as proxy:
            client = socket.create_connection(proxy.address, DEADLINE)
            proxy.wait_connected(1)
            proxy.blackhole()
        with client, pytest.raises(ConnectionError):
            # The reset may meet the read or the write.
            client.sendall(b"anybody?")
            assert client.recv(1) != b""
    assert "fault proxy" not in {thread.name for thread in threading.enumerate()}


async def test_a_database_is_reached_through_it(plain: Database) -> None:
    with Proxy(upstream_of(plain.url)) as proxy:
        connection = await asyncpg.connect(through(proxy, plain.url), timeout=DEADLINE)
        assert await connection.fetchval("SELECT current_database()") == plain.name
        assert proxy.count >= 1
        proxy.cut()
        with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
            await connection.fetchval("SELECT 1")
        connection.terminate()


@pytest.mark.parametrize(
    ("url", "upstream", "rewritten"),
    [
        ("postgresql://me@/one?host=%2Frun%2Fdb&port=5433", "/run/db/.s.PGSQL.5433", "postgresql://me@{}/one"),
        (
            "postgresql:///one?host=/run/db&sslmode=disable",
            "/run/db/.s.PGSQL.5432",
            "postgresql://{}/one?sslmode=disable",
        ),
        ("postgresql://me:p%40ss@db.example:6000/one", ("db.example", 6000), "postgresql://me:p%40ss@{}/one"),
        ("postgresql://me@db.example/one", ("db.example", 5432), "postgresql://me@{}/one"),
    ],
)
def test_urls_keep_all_but_the_server(url: str, upstream: object, rewritten: str) -> None:
    assert upstream_of(url) == upstream
    with Proxy(("127.0.0.1", 1)) as proxy:
        assert through(proxy, url) == rewritten.format(f"127.0.0.1:{proxy.port}")
