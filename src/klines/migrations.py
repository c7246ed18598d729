"""The schema: brings a database to the newest revision, also under traffic, and says where it stands.

An upgrade is one transaction: all of it or nothing. It never waits long for a lock, since all traffic queues behind
that wait; it gives up, lets the traffic through and does the whole transaction again, until its time is over.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString, NamedTuple

import asyncpg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from klines import profile
from klines.database import connected, open_engine, reading
from klines.errors import CannotStart

MIGRATION_SECONDS = 120
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0
LOOK_SECONDS = 0.1
# A lock that did not come in time; a deadlock with traffic that locks in another order.
WORTH_ANOTHER = {"55P03", "40P01"}

# What the session $1 waits for, and the oldest transaction in its way.
IN_THE_WAY: LiteralString = """
    SELECT coalesce(wanted.relation::regclass::text, wanted.locktype) AS what, other.pid,
           coalesce(nullif(other.application_name, ''), 'no name') AS name, other.state,
           coalesce(round(extract(epoch FROM clock_timestamp() - other.xact_start)), 0)::integer AS seconds
    FROM pg_locks AS wanted
    CROSS JOIN unnest(pg_blocking_pids(wanted.pid)) AS blocking (pid)
    JOIN pg_stat_activity AS other ON other.pid = blocking.pid
    WHERE wanted.pid = $1 AND NOT wanted.granted
    ORDER BY other.xact_start LIMIT 1
"""

logger = logging.getLogger("klines.migrations")


class AnotherMigrates(Exception):
    """Another process migrates this database now."""


class _Watch:
    """What was last seen in the way of a migration."""

    seen: str | None = None


class Status(NamedTuple):
    """Where a database stands: its revision (None: empty), the newest one, and its profile with the reason."""

    current: str | None
    newest: str
    profile: profile.Choice | None


def folder() -> Path:
    """The migrations: inside the package in a wheel, at the top of a checkout."""
    inside = Path(__file__).parent / "alembic"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "alembic"


async def upgrade(url: str, wanted_profile: str = "auto", seconds: float = MIGRATION_SECONDS) -> Status:
    """Bring the database at `url` to the newest revision; `seconds` may go by until it gets the locks it needs.

    Raises `CannotStart`, and nothing has changed, when they were over, naming what was in the way; also for a database
    that a newer version has upgraded.
    """
    deadline, pause = time.monotonic() + seconds, FIRST_PAUSE
    # A hand-over of many chunks is one statement; what waits for a lock ends by the lock's own timeout.
    async with open_engine(url, statement_seconds=0) as engine:
        _refuse_newer(await _status_on(engine))
        while (blocked := await _attempted(url, engine, wanted_profile)) is not None:
            if time.monotonic() + pause > deadline:
                place = _place((await _status_on(engine)).current)
                raise CannotStart(
                    f"the database stays {place}: for {seconds:g} s the migration could not get {blocked}",
                    code="migration_blocked",
                )
            logger.warning("the migration could not get %s; it tries again", blocked)
            # Many that try again at once would meet again.
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
            pause = min(2 * pause, LONGEST_PAUSE)
        return await _status_on(engine)


async def status(url: str) -> Status:
    """Where the database at `url` stands; changes nothing."""
    async with open_engine(url) as engine:
        return await _status_on(engine)


async def check(url: str) -> Status:
    """The status of a database that this version can serve; raises `CannotStart` saying what to do otherwise."""
    found = await status(url)
    _refuse_newer(found)
    if found.current != found.newest:
        needed = f"this version needs {found.newest}: run `klines db upgrade`"
        raise CannotStart(f"the database is {_place(found.current)}, {needed}", code="schema")
    return found


def _refuse_newer(found: Status) -> None:
    known = {script.revision for script in ScriptDirectory(str(folder())).walk_revisions()}
    if found.current is not None and found.current not in known:
        raise CannotStart(
            f"the database is at revision {found.current}, which this version does not know (its newest is"
            f" {found.newest}): a newer klines upgraded it; run that one, or restore a dump from before",
            code="schema_newer",
        )


def _place(current: str | None) -> str:
    return f"at revision {current}" if current else "empty"


async def _attempted(url: str, engine: AsyncEngine, wanted_profile: str) -> str | None:
    """Run the migrations in one transaction; None when it is committed, else, in words, what it could not get."""
    async with reading(engine) as connection, _watching(url, connection) as watch:
        try:
            await connection.run_sync(_upgrade, wanted_profile)
            await connection.commit()
        except AnotherMigrates:
            return "its turn: another process migrates this database"
        except (DBAPIError, asyncpg.PostgresError) as error:
            if getattr(getattr(error, "orig", error), "sqlstate", None) not in WORTH_ANOTHER:
                raise
            return watch.seen or "a lock"
    return None


@asynccontextmanager
async def _watching(url: str, connection: AsyncConnection) -> AsyncIterator[_Watch]:
    """While the context is open, a second connection looks what the first one waits for."""
    watch = _Watch()
    pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    await connection.rollback()
    other = await connected(url)
    task = asyncio.create_task(_look(other, pid, watch))
    try:
        yield watch
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await task
        other.terminate()


async def _look(other: asyncpg.Connection[Any], pid: int, watch: _Watch) -> None:
    while True:
        if (found := await other.fetchrow(IN_THE_WAY, pid)) is not None:
            what, holder, name, state, age = found
            watch.seen = f"a lock on {what}, held by pid {holder} ({name}, {state}, in a transaction for {age} s)"
        await asyncio.sleep(LOOK_SECONDS)


async def _status_on(engine: AsyncEngine) -> Status:
    async with reading(engine) as connection:
        return await connection.run_sync(_status)


def _config(connection: Connection, wanted_profile: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(folder()).replace("%", "%%"))
    config.attributes.update(connection=connection, wanted_profile=wanted_profile)
    return config


def _upgrade(connection: Connection, wanted_profile: str) -> None:
    command.upgrade(_config(connection, wanted_profile), "head")


def _status(connection: Connection) -> Status:
    profile.refuse_unfit_server(connection)
    newest = ScriptDirectory(str(folder())).get_current_head()
    found = profile.stored(connection)
    if found and found.profile == "timescale":
        _refuse_missing_timescale(connection)
    current = MigrationContext.configure(connection).get_current_revision()
    return Status(current, str(newest), found)


def _refuse_missing_timescale(connection: Connection) -> None:
    licence = connection.execute(text("SELECT current_setting('timescaledb.license', true)")).scalar()
    if licence != "timescale":
        what = "does not preload TimescaleDB" if licence is None else f"runs TimescaleDB's {licence} edition"
        raise CannotStart(f"the database has the timescale profile, but the server {what}", code="profile_lost")
