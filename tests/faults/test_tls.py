"""F55: the way to PostgreSQL is TLS, or there is none: `sslmode=verify-full` takes no certificate but a good one.

The embedded server is built without TLS, so a front of the test's own speaks it, with certificates made by openssl.
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import httpx
import pytest

from tests.application import serving, settings_for
from tests.live.followers import poll
from tests.live.proxy import upstream_of
from tests.servers import Database
from tests.service.processes import klines

pytestmark = [pytest.mark.fault("F55"), pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")]

# https://www.postgresql.org/docs/18/protocol-message-formats.html: SSLRequest, CancelRequest has another number
SSL_REQUEST = (8).to_bytes(4) + (80877103).to_bytes(4)
NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
TOKENS = "/api/v1/tokens"
DEADLINE = 30
CHUNK = 65536


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class Authority(NamedTuple):
    """A certificate authority of the test's own: what it issues lies in its directory."""

    directory: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.directory / f"{self.name}.pem"

    def open(self) -> Authority:
        """Make its own key and certificate."""
        key = self.certificate.with_suffix(".key")
        openssl("req", "-x509", *NEW_KEY, "-keyout", key, "-out", self.certificate, "-subj", f"/CN={self.name}")
        return self

    def issue(self, name: str = "IP:127.0.0.1", days: int = 30) -> ssl.SSLContext:
        """What a server with a certificate for this name shows, which is good for so many days."""
        made, key, request, names = (self.directory / f"server.{end}" for end in ("pem", "key", "csr", "txt"))
        names.write_text(f"subjectAltName={name}")
        openssl("req", *NEW_KEY, "-keyout", key, "-out", request, "-subj", "/CN=database")
        signer = ("-CA", self.certificate, "-CAkey", self.certificate.with_suffix(".key"))
        openssl("x509", "-req", "-in", request, *signer, "-extfile", names, "-days", str(days), "-out", made)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(made, key)
        return context


class Front:
    """Speaks TLS for a server that does not; `shows` None: says so, or says `answer`, and hangs up."""

    def __init__(self, database: Database, shows: ssl.SSLContext | None, answer: bytes = b"N") -> None:
        self.shows = shows
        self.plain: list[bytes] = []  # what clients sent outside of TLS
        self.port = 0
        self._database = database
        self._answer = answer
        self._open: set[asyncio.StreamWriter] = set()

    def url(self, trusted: Path, secret: str = "hunter2") -> str:  # noqa: S107 - told by nobody
        """For a client that trusts this authority only."""
        path = urlsplit(self._database.url).path
        query = urlencode({"sslmode": "verify-full", "sslrootcert": trusted})
        return f"postgresql://klines:{secret}@127.0.0.1:{self.port}{path}?{query}"

    def cut(self) -> None:
        """End all connections."""
        for writer in self._open:
            writer.transport.abort()

    async def meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client."""
        self._open.add(writer)
        try:
            # A handshake that is broken off is the client's right.
            with suppress(OSError, asyncio.IncompleteReadError):
                self.plain.append(await reader.read(len(SSL_REQUEST)))
                if self.shows is None:
                    writer.write(self._answer)
                    writer.write_eof()
                    self.plain.append(await reader.read())
                    return
                writer.write(b"S")
                await writer.start_tls(self.shows)
                await self._carry(reader, writer)
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = upstream_of(self._database.url)
        opening = asyncio.open_unix_connection(place) if isinstance(place, str) else asyncio.open_connection(*place)
        server_reader, server_writer = await opening
        ways = {
            asyncio.create_task(_pour(reader, server_writer)),
            asyncio.create_task(_pour(server_reader, writer)),
        }
        _, left = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in left:
            way.cancel()
        await asyncio.wait(ways)
        server_writer.transport.abort()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(CHUNK):
            writer.write(piece)
            await writer.drain()


@asynccontextmanager
async def fronted(front: Front) -> AsyncIterator[Front]:
    server = await asyncio.start_server(front.meet, "127.0.0.1", 0)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        front.cut()
        await server.wait_closed()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "ours").open()


async def refusal(url: str) -> str:
    """The one line with which a start is refused."""
    ended = await asyncio.to_thread(klines, "serve", DATABASE_URL=url, PORT="0")
    assert (ended.returncode, ended.stderr.count("\n")) == (3, 1), ended
    assert "the database cannot be used: " in ended.stderr
    assert "hunter2" not in ended.stderr
    return ended.stderr


async def test_a_certificate_that_is_not_good_is_refused_in_one_line(plain: Database, ours: Authority) -> None:
    others = ours._replace(name="others").open()
    cases = [
        (others.issue(), "unable to get local issuer certificate"),
        (ours.issue(days=-1), "certificate has expired"),
        (ours.issue("DNS:elsewhere"), "IP address mismatch"),
    ]
    async with fronted(Front(plain, None)) as front:
        for front.shows, words in cases:
            assert words in await refusal(front.url(ours.certificate))
    assert set(front.plain) == {SSL_REQUEST}


@pytest.mark.parametrize("answer", [b"N", b""], ids=["no TLS", "cut in the handshake"])
async def test_nothing_is_sent_in_plain_text(plain: Database, ours: Authority, answer: bytes) -> None:
    async with fronted(Front(plain, None, answer)) as front:
        await refusal(front.url(ours.certificate))
    assert set(front.plain) == {SSL_REQUEST, b""}


async def test_a_bad_certificate_is_an_absent_database_until_it_is_replaced(plain: Database, ours: Authority) -> None:
    good, expired = ours.issue(), ours.issue(days=-1)
    async with fronted(Front(plain, good)) as front:
        settings = settings_for(Database(front.url(ours.certificate), "plain"))
        async with serving(settings) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
            assert (await client.put(f"{TOKENS}/PEPE", json={})).status_code in {200, 201}
            front.shows = expired
            front.cut()
            answer = await client.get(TOKENS)
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
            front.shows = good

            async def healed() -> bool:
                return (await client.get("/health/ready")).status_code == 200

            await poll(healed, DEADLINE)
            assert (await client.get(TOKENS)).json()["tokens"][0]["symbol"] == "PEPE"
    assert set(front.plain) == {SSL_REQUEST}
