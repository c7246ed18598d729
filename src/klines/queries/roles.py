"""The roles of the service in the database: which of them a login works as, and what keeps them from being in place.

The roles are the cluster's, their rights are the database's: `klines_internal.grant_roles_v1` (revision 0008) makes
both and may be called again. A login that may be `klines_reader` and `klines_writer` reads as the one and writes as
the other, a superuser too, so that no statement of the service can do more than it has to. A login that may be neither
works as itself, with the rights that it has.
"""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

import asyncpg
from sqlalchemy import ARRAY, Text, column, func, literal, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.database import open_engine, reading

READER, WRITER = "klines_reader", "klines_writer"

LOCK_TIMEOUT = "500ms"

END_SESSIONS: LiteralString = "SELECT pid, login, why, lasted FROM klines_internal.end_analyst_sessions_v1($1)"

_roles = table("pg_roles", column("oid"), column("rolname"), schema="pg_catalog")
_spaces = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")
_relations = table("pg_class", column("oid"), column("relname"), column("relnamespace"), schema="pg_catalog")
_routines = table("pg_proc", column("oid"), column("proname"), column("pronamespace"), schema="pg_catalog")


class Addresses(NamedTuple):
    """The address of a database for who reads and for who writes: the same login, as the role for the work."""

    reading: str
    writing: str


class Ended(NamedTuple):
    """A session that was ended: its process, its login, why, and for how many seconds that had lasted."""

    pid: int
    login: str
    why: str
    seconds: int


async def addresses(url: str) -> Addresses:
    """How to read and how to write at `url`; as the login itself where the roles are not to be had."""
    if "role=" in url.partition("?")[2]:
        return Addresses(url, url)
    async with open_engine(url) as engine, reading(engine) as connection:
        taken = await _may_take(connection)
    return Addresses(_as(url, READER), _as(url, WRITER)) if taken else Addresses(url, url)


async def left(connection: AsyncConnection) -> list[str]:
    """What keeps the roles from having what they need and no more, in words; changes nothing."""
    return await _told(connection, "roles_left_v1")


async def grant(connection: AsyncConnection) -> list[str]:
    """Create the roles and grant what is theirs, where we may; what is left, as `left` says it.

    What has another owner is handed over under the strongest lock: it does not wait for that, as everybody would.
    """
    await connection.execute(select(func.set_config("lock_timeout", LOCK_TIMEOUT, True)))
    return await _told(connection, "grant_roles_v1")


async def end_analyst_sessions(connection: asyncpg.Connection[Any], seconds: int) -> list[Ended]:
    """End what analysts let last longer than so many seconds, at most 100 sessions; needs `klines_writer`."""
    return [Ended(*row) for row in await connection.fetch(END_SESSIONS, seconds)]


async def _told(connection: AsyncConnection, function: str) -> list[str]:
    """What a function of the revision says; nothing before the revision."""
    # By the catalog: to look a name up in a schema that is closed to the login would be an error.
    known = select(_routines.c.oid).join(_spaces, _spaces.c.oid == _routines.c.pronamespace)
    known = known.where(_spaces.c.nspname == "klines_internal", _routines.c.proname == function)
    if (await connection.execute(known)).first() is None:
        return []
    said = select(func.unnest(getattr(func.klines_internal, function)(type_=ARRAY(Text))))
    return list((await connection.execute(said)).scalars())


async def _may_take(connection: AsyncConnection) -> bool:
    """Whether this login may become both roles, and both have their rights in this database."""
    rights = {READER: ("klines_internal", "live_klines", "SELECT"), WRITER: ("public", "trades", "INSERT")}
    taken = [await _may_take_one(connection, role, *right) for role, right in rights.items()]
    return all(taken)


async def _may_take_one(connection: AsyncConnection, role: str, schema: str, relation: str, right: str) -> bool:
    statement = (
        select(func.bool_and(func.has_table_privilege(_roles.c.oid, _relations.c.oid, right)))
        .select_from(_relations)
        .join(_spaces, _spaces.c.oid == _relations.c.relnamespace)
        .join(_roles, _roles.c.rolname == role)
        .where(_spaces.c.nspname == schema, _relations.c.relname == relation)
        .where(func.pg_has_role(_roles.c.oid, literal("SET")), func.has_schema_privilege(_roles.c.oid, schema, "USAGE"))
    )
    return bool((await connection.execute(statement)).scalar())


def _as(url: str, role: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}role={role}"
