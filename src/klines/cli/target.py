"""The database that a command works on: DATABASE_URL, or the embedded server."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError

from klines import migrations
from klines.database import open_engine, reading
from klines.embedded import EmbeddedServer, has_cluster, running_url
from klines.errors import CannotStart, Conflict, NotFound, Unavailable
from klines.queries import logins, roles
from klines.settings import Settings, read_settings

INSUFFICIENT_PRIVILEGE = "42501"
# PgBouncer of what it does not pass on, and PostgreSQL of statements that another client left in the session.
A_POOLER_SAYS = ("unsupported startup parameter", "prepared statement")
POOLED = "; DATABASE_URL must lead to PostgreSQL itself: nobody can LISTEN through a pooler in transaction mode"
# Every chunk of every hypertable gets its new owner by itself.
UPGRADE_SECONDS = 300

logger = logging.getLogger("klines")


@contextmanager
def owned_database(settings: Settings, *, keep: bool = False) -> Iterator[str]:
    """URL of the database that this process serves: as given, or an embedded server that runs as long as we do.

    The embedded database is brought to the newest revision; one that was given must already be there. With `keep`,
    for a service, an embedded server that dies is started again, and the URL is that of the login `klines_service`;
    without, it is the owner's.
    """
    if settings.database_url:
        with explained():
            asyncio.run(migrations.check(settings.database_url))
        yield settings.database_url
        return
    with EmbeddedServer(settings.data_dir, settings.klines_postgres_port, keep=keep) as server:
        seconds = settings.klines_migration_seconds
        asyncio.run(migrations.upgrade(server.url, settings.klines_storage_profile, seconds))
        asyncio.run(granted(server.url))
        if keep:
            asyncio.run(_service_let_in(server.url))
        logger.info("embedded PostgreSQL in %s", settings.data_dir)
        yield server.service_url if keep else server.url


async def granted(url: str) -> list[str]:
    """Give the roles what is theirs in a database that was upgraded; what an administrator has to do, in words.

    Not only in a migration: roles come and go without the database, and a later migration makes what they lack.
    """
    async with open_engine(url, statement_seconds=UPGRADE_SECONDS) as engine, reading(engine) as connection:
        if left := await roles.left(connection):
            left = await roles.grant(connection)
            await connection.commit()
        return left


async def _service_let_in(url: str) -> None:
    async with open_engine(url) as engine, reading(engine) as connection:
        await roles.make_service(connection)
        if excess := await roles.service_excess(connection):
            raise CannotStart(f"{roles.SERVICE} {' and '.join(excess)}: that has to be taken away before it can serve")
        await logins.let_in(connection, roles.SERVICE)
        await connection.commit()


@contextmanager
def target_database() -> Iterator[str]:
    """URL of the database that a passing command works on: a running service's if there is one."""
    settings = read_settings(os.environ)
    beside = None if settings.database_url else running_url(settings.data_dir)
    if beside:
        with explained():
            asyncio.run(migrations.check(beside))
        yield beside
        return
    with owned_database(settings) as url:
        yield url


@contextmanager
def existing_database() -> Iterator[str]:
    """The same for a command that only looks: raises `NotFound` rather than making an embedded database."""
    settings = read_settings(os.environ)
    if not settings.database_url and not has_cluster(settings.data_dir):
        raise NotFound(f"no database in {settings.data_dir}; `klines serve` makes it, KLINES_DATA_DIR names another")
    with target_database() as url:
        yield url


def running_database(settings: Settings) -> str:
    """URL of a database that runs already; starts nothing, raises `NotFound`."""
    url = settings.database_url or running_url(settings.data_dir)
    if not url:
        raise NotFound(f"no embedded server runs in {settings.data_dir}; `klines serve` starts it")
    return url


@contextmanager
def explained() -> Iterator[None]:
    """Turns a database that cannot be used into `CannotStart` with what the server or the driver said of it."""
    try:
        yield
    except (Unavailable, DBAPIError, asyncpg.PostgresError, OSError, ValueError) as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        said = (str(cause).strip().splitlines() or [type(cause).__name__])[0]
        why = POOLED if said.startswith(A_POOLER_SAYS) else ""
        raise CannotStart(f"the database cannot be used: {said}{why}", code="database_unusable") from error


@contextmanager
def privileged(told: str) -> Iterator[None]:
    """Turns the refusal of what a login may not do into `Conflict` with these words."""
    try:
        yield
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != INSUFFICIENT_PRIVILEGE:
            raise
        raise Conflict(told) from None
