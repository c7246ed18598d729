"""What the server says of itself."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import and_, column, exists, func, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")

parameters = table("pg_settings", column("name"), column("setting"), column("source"), schema="pg_catalog")
version = table("alembic_version", column("version_num"), schema="public")


class State(NamedTuple):
    """`durability`: the settings on which the survival of an acknowledged trade depends, by name.

    `read_only`: whether the server refuses whatever writes, as a standby does; `revision`: of the schema.
    """

    durability: dict[str, str]
    read_only: bool
    revision: str | None


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
    *durability, closed, found = (await connection.execute(select(*settings, read_only, revision))).one()
    return State(dict(zip(DURABILITY, durability, strict=True)), closed, found)
