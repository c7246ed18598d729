"""Roles that log in: what one may beyond what it is for, and letting it in with a password."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import column, func, literal, select, table
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.errors import Conflict

# What no login of ours needs, in words; any of it, whoever granted it, keeps us from handing out a password.
POWERS = {
    "rolsuper": "is a superuser",
    "rolcreaterole": "may create roles",
    "rolcreatedb": "may create databases",
    "rolreplication": "may replicate",
    "rolbypassrls": "passes by row security",
}

_roles = table("pg_roles", column("oid"), column("rolname"), *map(column, POWERS), schema="pg_catalog")


async def exists(connection: AsyncConnection, role: str) -> bool:
    """Whether the cluster has the role."""
    return (await connection.execute(select(_roles.c.oid).where(_roles.c.rolname == role))).first() is not None


async def powers(connection: AsyncConnection, role: str) -> list[str]:
    """What an existing role is by itself beyond a login, in words."""
    found = (await connection.execute(select(_roles).where(_roles.c.rolname == role))).mappings().one()
    return [words for power, words in POWERS.items() if found[power]]


async def memberships(connection: AsyncConnection, role: str, expected: Collection[str]) -> list[str]:
    """Of which roles it is a member beyond the expected ones, through others too, in words."""
    statement = (
        select(_roles.c.rolname)
        .where(func.pg_has_role(literal(role), _roles.c.oid, "MEMBER"), _roles.c.rolname.not_in([role, *expected]))
        .order_by(_roles.c.rolname)
    )
    found = list((await connection.execute(statement)).scalars())
    return [f"is a member of {', '.join(found)}"] if found else []


async def let_in(connection: AsyncConnection, role: str, verifier: str | None = None) -> None:
    """Let one of our roles log in with the password of this SCRAM verifier: URL-safe characters and `$:=`.

    Without one its password stays as it is; if it has none, a server lets it in only where it asks for none.
    """
    if verifier is None:
        await connection.exec_driver_sql(f"ALTER ROLE {role} LOGIN")
        return
    if "'" in verifier or "\\" in verifier:
        raise Conflict("a SCRAM verifier holds no quotes")
    # Not through text(), which would take the verifier's colons for parameters; DDL takes none.
    await connection.exec_driver_sql(f"ALTER ROLE {role} LOGIN PASSWORD '{verifier}'")


async def tcp_port(connection: AsyncConnection) -> int | None:
    """The TCP port that the server of this connection listens on; None where it has only a socket."""
    asked = select(func.current_setting("listen_addresses"), func.current_setting("port"))
    addresses, port = (await connection.execute(asked)).one()
    return int(port) if addresses else None
