"""The roles of the service in the database: which of them a login works as, and what keeps them from being in place.

The roles are the cluster's, their rights are the database's: `klines_internal.grant_roles_v1` (revision 0008) makes
both and may be called again. A login that may be `klines_reader` and `klines_writer` reads as the one and writes as
the other, a superuser too, so that no statement of ours does more than it has to by mistake. That is no fence: who can
run statements of his own in such a session can leave the role, and may then what the login may. So the login itself
is to be `klines_service`; with the embedded server it is, and of another that may more `login_excess` says so. A login
that may be neither role works as itself, with the rights that it has.
"""

from __future__ import annotations

from typing import Any, LiteralString, NamedTuple

import asyncpg
from sqlalchemy import ARRAY, Text, column, func, literal, literal_column, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.database import open_engine, reading
from klines.errors import Conflict
from klines.queries import logins

OWNER, READER, WRITER = "klines_owner", "klines_reader", "klines_writer"
SERVICE = "klines_service"
"""The login of the service: a member of both, and of nothing else."""

LOCK_TIMEOUT = "500ms"

END_SESSIONS: LiteralString = "SELECT pid, login, why, lasted FROM klines_internal.end_analyst_sessions_v1($1)"

_roles = table("pg_roles", column("oid"), column("rolname"), column("rolsuper"), schema="pg_catalog")
_spaces = table("pg_namespace", column("oid"), column("nspname"), schema="pg_catalog")
_relations = table("pg_class", column("oid"), column("relname"), column("relnamespace"), schema="pg_catalog")
_routines = table("pg_proc", column("oid"), column("proname"), column("pronamespace"), schema="pg_catalog")


class Addresses(NamedTuple):
    """The address of a database for who reads and for who writes: the same login, as the role for the work.

    `excess` is what the login may beyond the work, as `login_excess` says it.
    """

    reading: str
    writing: str
    excess: str | None = None


class Ended(NamedTuple):
    """A session that was ended: its process, its login, why, and for how many seconds that had lasted."""

    pid: int
    login: str
    why: str
    seconds: int


async def addresses(url: str) -> Addresses:
    """How to read and how to write at `url`; as the login itself where the roles are not to be had."""
    async with open_engine(url) as engine, reading(engine) as connection:
        excess = await login_excess(connection)
        taken = "role=" not in url.partition("?")[2] and await _may_take(connection)
    return Addresses(_as(url, READER), _as(url, WRITER), excess) if taken else Addresses(url, url, excess)


async def login_excess(connection: AsyncConnection) -> str | None:
    """What the login of this connection may that no service should, whatever role it works in; None: nothing."""
    login = literal_column("session_user", Text)
    superuser = select(_roles.c.rolsuper).where(_roles.c.rolname == login).scalar_subquery()
    owner = select(func.pg_has_role(login, _roles.c.oid, "MEMBER")).where(_roles.c.rolname == OWNER).scalar_subquery()
    name, is_superuser, is_owner = (await connection.execute(select(login, superuser, owner))).one()
    if not is_superuser and not is_owner:
        return None
    may = "is a superuser" if is_superuser else f"may become {OWNER}"
    return f"the login {name} {may}: let services log in as {SERVICE}, which `klines db service` makes"


async def left(connection: AsyncConnection) -> list[str]:
    """What keeps the roles from having what they need and no more, in words; changes nothing."""
    return await _told(connection, "roles_left_v1")


async def grant(connection: AsyncConnection) -> list[str]:
    """Create the roles and grant what is theirs, where we may; what is left, as `left` says it.

    What has another owner is handed over under the strongest lock: it does not wait for that, as everybody would.
    """
    await connection.execute(select(func.set_config("lock_timeout", LOCK_TIMEOUT, True)))
    if not await _may_call(connection, "grant_roles_v1"):
        return await left(connection)
    return await _told(connection, "grant_roles_v1")


async def make_service(connection: AsyncConnection) -> None:
    """Make the login of the service, without a password, where it is missing; needs the right to create roles.

    Raises `Conflict` while the roles are not in place.
    """
    if problems := [role for role in (READER, WRITER) if not await logins.exists(connection, role)]:
        raise Conflict(f"{problems[0]} is missing: an administrator has to run `klines db upgrade` first")
    if not await logins.exists(connection, SERVICE):
        await connection.exec_driver_sql(f"CREATE ROLE {SERVICE} NOLOGIN")
    member = select(*(func.pg_has_role(literal(SERVICE), role, "SET") for role in (WRITER, READER)))
    if not all((await connection.execute(member)).one()):
        await connection.exec_driver_sql(f"GRANT {WRITER}, {READER} TO {SERVICE} WITH INHERIT TRUE, SET TRUE")


async def service_excess(connection: AsyncConnection) -> list[str]:
    """What the login of the service may beyond its work, in words."""
    return await logins.powers(connection, SERVICE) + await logins.memberships(connection, SERVICE, (WRITER, READER))


async def end_analyst_sessions(connection: asyncpg.Connection[Any], seconds: int) -> list[Ended]:
    """End what analysts let last longer than so many seconds, at most 100 sessions; needs `klines_writer`."""
    return [Ended(*row) for row in await connection.fetch(END_SESSIONS, seconds)]


async def _told(connection: AsyncConnection, function: str) -> list[str]:
    """What a function of the revision says; nothing before the revision, nor to who may not ask."""
    if not await _may_call(connection, function):
        return []
    said = select(func.unnest(getattr(func.klines_internal, function)(type_=ARRAY(Text))))
    return list((await connection.execute(said)).scalars())


async def _may_call(connection: AsyncConnection, function: str) -> bool:
    # By the catalog: to look a name up in a schema that is closed to the login would be an error.
    known = select(_routines.c.oid).join(_spaces, _spaces.c.oid == _routines.c.pronamespace)
    known = known.where(_spaces.c.nspname == "klines_internal", _routines.c.proname == function)
    known = known.where(func.has_function_privilege(_routines.c.oid, "EXECUTE"))
    return (await connection.execute(known)).first() is not None


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
