"""Runs the migrations: on the connection of `klines.migrations`, or from the `alembic` command on DATABASE_URL.

All of it happens in one transaction, under a lock that lets one process migrate at a time. A lock that somebody else
holds is waited for only `LOCK_TIMEOUT`, because every writer queues behind the wait; `klines.migrations` then does the
whole transaction again, the `alembic` command leaves that to who typed it.
"""

from __future__ import annotations

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, text

from klines.database import open_engine
from klines.errors import CannotStart
from klines.migrations import AnotherMigrates
from klines.revision import LOCK_TIMEOUT
from klines.settings import read_settings
from klines.tables import metadata

MIGRATION_LOCK = 0x6B6C696E6573  # "klines"


def run(connection: Connection) -> None:
    connection.execute(text("SET LOCAL statement_timeout = 0"))
    connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    if not connection.execute(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK}).scalar():
        raise AnotherMigrates
    context.configure(
        connection=connection,
        target_metadata=metadata,
        include_object=lambda item, *_: not getattr(item, "info", {}).get("skip_autogenerate"),
        transactional_ddl=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_from_command_line() -> None:
    settings = read_settings(os.environ)
    if not settings.database_url:
        raise CannotStart("DATABASE_URL: needed here; for the embedded server use `klines db upgrade`")
    context.config.attributes.setdefault("wanted_profile", settings.klines_storage_profile)
    async with open_engine(settings.database_url, statement_seconds=0) as engine, engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()


if (connection := context.config.attributes.get("connection")) is not None:
    run(connection)
else:
    asyncio.run(run_from_command_line())
