"""What the server says of itself."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import and_, column, exists, func, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

TRADES = "public.trades"
DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")

parameters = table("pg_settings", column("name"), column("setting"), column("source"), schema="pg_catalog")
version = table("alembic_version", column("version_num"), schema="public")


class State(NamedTuple):
    """`durability`: the settings on which the survival of an acknowledged trade depends, by name.

    `read_only`: whether the server refuses whatever writes, as a standby does; `revision`: of the schema; `may_write`:
    whether this login may store trades; `notify_queue`: the part of the notification queue in use, 0 to 1.
    """

    durability: dict[str, str]
    read_only: bool
    revision: str | None
    may_write: bool
    notify_queue: float


async def state(connection: AsyncConnection) -> State:
    """The state of the server and of this database in it."""
    # A session may have chosen for itself to read only; that says nothing of others.
    told_to_all = and_(
        parameters.c.name == "default_transaction_read_only",
        parameters.c.setting == "on",
        parameters.c.source != "client",
    )
    settings = [func.current_setting(name) for name in DURABILITY]
    read_only = func.pg_is_in_recovery() | exists().where(told_to_all)
    revision = select(func.max(version.c.version_num)).scalar_subquery()
    may_write = func.has_table_privilege(TRADES, "INSERT")
    asked = select(*settings, read_only, revision, may_write, func.pg_notification_queue_usage())
    *durability, closed, found, may, used = (await connection.execute(asked)).one()
    return State(dict(zip(DURABILITY, durability, strict=True)), closed, found, bool(may), used)
