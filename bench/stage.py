"""Where a benchmark plays: one PostgreSQL for a profile, fresh migrated databases in it, and services on them.

Everything that a context here starts has ended when it is left, also by an error or an interrupt.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import psutil

from bench.service import PROGRAM, port_of, service_of
from klines import migrations, settings


class Size(NamedTuple):
    """How much is measured: rounds, and by how much amounts of data and numbers of clients are divided."""

    runs: int = 5
    divisor: int = 1

    def of(self, amount: int) -> int:
        """How much instead of this; at least one."""
        return max(1, amount // self.divisor)


FULL = Size()
TRIAL = Size(runs=1, divisor=20)


class Service(NamedTuple):
    """A running `klines serve`."""

    process: psutil.Process
    port: int


class Stage(NamedTuple):
    """A server with one profile; `url` is that of its first database, which nobody migrates."""

    folder: Path
    url: str
    profile: str
    size: Size
    postmaster: psutil.Process

    @asynccontextmanager
    async def database(self, name: str) -> AsyncIterator[str]:
        """The URL of a new database with the project's schema in this profile; dropped in the end."""
        await self._execute(f"CREATE DATABASE {name}")
        url = urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))
        try:
            await migrations.upgrade(url, self.profile)
            yield url
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    @contextmanager
    def serving(self, url: str, *, program: Sequence[str] = PROGRAM, **variables: str) -> Iterator[Service]:
        """A service of its own process on a database, on a free port, with these settings and defaults else."""
        ours = {name: value for name, value in os.environ.items() if name not in settings.variables()}
        log = self.folder / "service.log"
        with service_of(log, ours | {"DATABASE_URL": url, "PORT": "0"} | variables, program) as process:
            yield Service(psutil.Process(process.pid), port_of(process, log))

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


@asynccontextmanager
async def staged(folder: Path, url: str, profile: str, size: Size) -> AsyncIterator[Stage]:
    """The stage on a server."""
    connection = await asyncpg.connect(url)
    try:
        backend = psutil.Process(connection.get_server_pid())
        yield Stage(folder, url, profile, size, backend.parent() or backend)
    finally:
        await connection.close()
