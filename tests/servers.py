"""The PostgreSQL server that the tests run on: TEST_DATABASE_URL, a container, or the embedded server, in this order.

It carries one template database per storage profile; a test gets a copy of its own.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from klines import migrations
from klines.embedded import EmbeddedServer
from klines.errors import CannotStart
from tests.watcher import watch

CONTAINER_IMAGE = "timescale/timescaledb:2.29.2-pg18"
T = TypeVar("T")
_counter = itertools.count(1)


def run(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine from synchronous code, also beside a test's own event loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(make())).result()


@dataclass(frozen=True)
class Database:
    """A migrated database that belongs to one test."""

    url: str
    profile: str

    @property
    def name(self) -> str:
        return urlsplit(self.url).path.lstrip("/")


@dataclass
class Server:
    """A server on which databases can be made; `refusals` remembers why a profile is not to be had."""

    url: str
    kind: str
    templates: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)

    def database_url(self, name: str) -> str:
        parts = urlsplit(self.url)
        # A URL without a host, as the embedded server's, loses its slashes in urlunsplit.
        if not parts.netloc:
            return f"postgresql:///{name}?{parts.query}"
        return urlunsplit(parts._replace(path=f"/{name}"))

    def execute(self, statement: str) -> None:
        async def execute() -> None:
            connection = await asyncpg.connect(self.url)
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        run(execute)

    def template(self, profile: str) -> str | None:
        """Name of the template of a profile, made at the first call; None if the server refuses the profile."""
        if profile not in self.templates and profile not in self.refusals:
            name = f"klines_test_{os.getpid()}_{profile}"
            self.execute(f"CREATE DATABASE {name}")
            try:
                run(lambda: migrations.upgrade(self.database_url(name), profile))
            except CannotStart as refusal:
                self.refusals[profile] = refusal.detail
                self.execute(f"DROP DATABASE {name} WITH (FORCE)")
                return None
            run(lambda: _stop_jobs(self.database_url(name)))
            self.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            self.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            self.templates[profile] = name
        return self.templates.get(profile)

    @contextmanager
    def database(self, profile: str) -> Iterator[Database]:
        """A fresh copy of a profile's template."""
        name = f"klines_test_{os.getpid()}_{next(_counter)}"
        self.execute(f"CREATE DATABASE {name} TEMPLATE {self.templates[profile]}")
        try:
            yield Database(self.database_url(name), profile)
        finally:
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def drop_templates(self) -> None:
        for name in self.templates.values():
            self.execute(f"DROP DATABASE {name} WITH (FORCE)")


async def _stop_jobs(url: str) -> None:
    # A test calls the jobs it is about; none runs by itself between two of its statements.
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT to_regnamespace('timescaledb_information')"):
            await connection.execute("SELECT _timescaledb_functions.stop_background_workers()")
            await connection.execute("SELECT alter_job(job_id, scheduled => false) FROM timescaledb_information.jobs")
            # A job that was stopped in its run counts as crashed, and would wait for minutes in every copy.
            await connection.execute("DELETE FROM _timescaledb_internal.bgw_job_stat")
    finally:
        await connection.close()


@contextmanager
def open_server() -> Iterator[Server]:
    """The server of this run."""
    if url := os.environ.get("TEST_DATABASE_URL"):
        server = Server(url, "TEST_DATABASE_URL")
        try:
            yield server
        finally:
            server.drop_templates()
    elif _docker_answers():
        with _container() as url:
            yield Server(url, "testcontainers")
    else:
        with reachable_directory() as directory, EmbeddedServer(directory) as embedded:
            yield Server(embedded.url, "embedded")


@contextmanager
def reachable_directory() -> Iterator[Path]:
    """A directory that the embedded server's account can reach, which pytest's own, being private, may not be."""
    directory = Path(tempfile.mkdtemp(prefix="klines-test-"))
    directory.chmod(0o711)
    watch(directory)
    try:
        yield directory / "data"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _docker_answers() -> bool:
    address = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock"))
    family = socket.AF_UNIX if address.scheme == "unix" else socket.AF_INET
    target = address.path if address.scheme == "unix" else (address.hostname, address.port or 2375)
    with socket.socket(family) as probe:
        probe.settimeout(3)
        return probe.connect_ex(target) == 0


@contextmanager
def _container() -> Iterator[str]:
    from testcontainers.postgres import PostgresContainer  # noqa: PLC0415 - needs a daemon

    with PostgresContainer(CONTAINER_IMAGE, username="klines", dbname="klines", driver=None) as container:
        yield container.get_connection_url()
