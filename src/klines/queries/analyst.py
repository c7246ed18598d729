"""The role that analysts read with: where it stands, and what it may.

The role is the cluster's, its grants are the database's: `klines_internal.grant_analyst_v1` (revision 0006) makes both
and may be called again. Whoever lacks the right to do so is told what an administrator has to do.
"""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import and_, column, func, literal, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries import logins
from klines.tables import metadata

ROLE = "klines_analyst"
MISSING = f"an administrator has to CREATE ROLE {ROLE}; then run `klines db upgrade` again"

_roles = table("pg_roles", column("oid"), column("rolname"), column("rolcanlogin"))
_memberships = table("pg_auth_members", column("member"))
_spaces = table("pg_namespace", column("oid"), column("nspname"))
_relations = table("pg_class", column("oid"), column("relname"), column("relnamespace"))


class Standing(NamedTuple):
    """What the role is in this database: `missing` says what keeps it from reading, `excess` what it may beyond."""

    may_log_in: bool
    missing: str | None
    excess: tuple[str, ...]


async def standing(connection: AsyncConnection) -> Standing:
    """Where the role stands; changes nothing, and works at any revision of the schema."""
    found = (await connection.execute(select(_roles).where(_roles.c.rolname == ROLE))).mappings().one_or_none()
    if found is None:
        return Standing(False, MISSING, ())
    oid = found["oid"]
    # Whatever role it is a member of: reading takes none.
    excess = await logins.powers(connection, ROLE) + await _more_than_reading(connection, oid)
    return Standing(found["rolcanlogin"], await _unreadable(connection, oid), tuple(excess))


async def grant(connection: AsyncConnection) -> str | None:
    """Create the role where we may, and grant it the contract; what an administrator has to do, None if nothing."""
    told: str | None = (await connection.execute(select(func.klines_internal.grant_analyst_v1()))).scalar_one()
    return told


async def _unreadable(connection: AsyncConnection, oid: int) -> str | None:
    readable = (
        select(_relations.c.relname)
        .join(_spaces, _spaces.c.oid == _relations.c.relnamespace)
        .where(
            _spaces.c.nspname == "public",
            _relations.c.relname.in_(list(metadata.tables)),
            func.has_table_privilege(oid, _relations.c.oid, "SELECT"),
            func.has_schema_privilege(oid, _spaces.c.oid, "USAGE"),
        )
    )
    names = set((await connection.execute(readable)).scalars())
    left = [name for name in metadata.tables if name not in names]
    if left:
        return f"{ROLE} cannot read {left[0]}: run `klines db upgrade`"
    return None


async def _more_than_reading(connection: AsyncConnection, oid: int) -> list[str]:
    member = select(_memberships.c.member).where(_memberships.c.member == oid).exists()
    writes = (
        select(_relations.c.oid)
        .join(_spaces, _spaces.c.oid == _relations.c.relnamespace)
        .where(
            and_(_spaces.c.nspname == "public", _relations.c.relname.in_(list(metadata.tables))),
            func.has_table_privilege(oid, _relations.c.oid, "INSERT, UPDATE, DELETE, TRUNCATE"),
        )
        .exists()
    )
    internal = (
        select(_spaces.c.oid)
        .where(_spaces.c.nspname == "klines_internal", func.has_schema_privilege(oid, _spaces.c.oid, "USAGE"))
        .exists()
    )
    creates = func.has_schema_privilege(oid, literal("public"), "CREATE")
    row = (await connection.execute(select(member, writes, internal, creates))).one()
    words = ("is a member of other roles", "may write", "may look into klines_internal", "may create in public")
    return [said for said, true in zip(words, row, strict=True) if true]
