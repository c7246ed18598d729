"""Other logins than the administrator's: as a session of the test's server, and on a server of their own."""

from __future__ import annotations

import secrets
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from click.testing import CliRunner, Result

from klines.__main__ import commands
from klines.embedded import EmbeddedServer
from klines.errors import KlinesError
from tests.servers import Database, Server, run


@asynccontextmanager
async def connected(url: str, login: str | None = None) -> AsyncIterator[asyncpg.Connection[Any]]:
    """A connection for the test; with `login` the session is that role's, and is no administrator's any more."""
    connection = await asyncpg.connect(url)
    try:
        if login:
            await connection.execute(f"SET SESSION AUTHORIZATION {login}")
        yield connection
    finally:
        connection.terminate()


@dataclass
class Cluster:
    """A server on which logins are real: they come in by TCP with a password."""

    server: Server
    port: int
    password: str

    def administrator(self, database: str) -> str:
        """The address of a database for the administrator, by TCP."""
        return self.url(database, "klines", self.password)

    def login(self, name: str, options: str = "") -> str:
        """Make a login that has `options`; its password."""
        password = secrets.token_urlsafe(16)
        self.server.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {options}")
        return password

    def url(self, database: str, name: str, password: str) -> str:
        """The address of a database for a login."""
        return f"postgresql://{name}:{password}@127.0.0.1:{self.port}/{database}"

    def member(self, database: Database, name: str, password: str) -> Database:
        """The same database for a login."""
        return Database(self.url(database.name, name, password), database.profile)


@contextmanager
def open_cluster(**options: str) -> Iterator[Cluster]:
    """A server for one module, with settings of its own."""
    base = Path(tempfile.mkdtemp(prefix="klines-test-"))
    base.chmod(0o711)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    try:
        with EmbeddedServer(base / "data", port, options) as embedded:
            password = urlsplit(embedded.tcp_url or "").password
            yield Cluster(Server(embedded.url, "embedded"), port, password or "")
    finally:
        shutil.rmtree(base, ignore_errors=True)


def execute(url: str, *statements: str) -> None:
    """Run statements as who the address says, from synchronous code."""

    async def work() -> None:
        async with connected(url) as connection:
            for statement in statements:
                await connection.execute(statement)

    run(work)


def klines(*arguments: str, **environment: str) -> Result:
    """A command of ours, run in this process; its error is the result's `exception`."""
    return CliRunner().invoke(commands, arguments, env=environment)


def said(*arguments: str, **environment: str) -> str:
    """What a command that succeeds prints."""
    result = klines(*arguments, **environment)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return result.stdout


def refused(*arguments: str, **environment: str) -> str:
    """The one line of a command that is refused."""
    error = klines(*arguments, **environment).exception
    assert isinstance(error, KlinesError), repr(error)
    return error.detail
