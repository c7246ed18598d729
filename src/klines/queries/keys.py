"""API keys and tickets in the database: what `klines keys` writes, and what a process reads of them.

What is done to keys is recorded by a trigger (revision 0007), whoever does it. Writes are visible once the caller
commits.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    DateTime,
    LargeBinary,
    Select,
    Text,
    Uuid,
    and_,
    bindparam,
    column,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    table,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

USED_SECONDS = 60
"""The least time between two notes of the use of one key."""
SWEPT = 100

_MOMENT = DateTime(timezone=True)

_keys = table(
    "api_keys",
    column("key_id", Text),
    column("digest", LargeBinary),
    column("name", Text),
    column("scopes", ARRAY(Text)),
    column("created_at", _MOMENT),
    column("expires_at", _MOMENT),
    column("revoked_at", _MOMENT),
    column("last_used_at", _MOMENT),
    schema="klines_internal",
)
_stamps = table("key_stamp", column("stamp", Uuid), schema="klines_internal")
_tickets = table(
    "tickets",
    column("digest", LargeBinary),
    column("key_id", Text),
    column("expires_at", _MOMENT),
    schema="klines_internal",
)


class Key(NamedTuple):
    """A key that is good until `expires` (epoch seconds; None: until it is revoked)."""

    key_id: str
    digest: bytes
    scopes: frozenset[str]
    expires: float | None


class Listed(NamedTuple):
    """A key as an operator sees it."""

    key_id: str
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


async def stamp(connection: AsyncConnection) -> UUID | None:
    """Another value whenever a key was changed since; None when nobody can say."""
    found: UUID | None = (await connection.execute(select(_stamps.c.stamp))).scalar()
    return found


async def good(connection: AsyncConnection, most: int) -> list[Key]:
    """The keys that are neither revoked nor expired, the newest `most` of them."""
    statement = _good(select(_keys)).order_by(_keys.c.created_at.desc()).limit(most)
    return [
        Key(row.key_id, row.digest, frozenset(row.scopes), row.expires_at.timestamp() if row.expires_at else None)
        for row in await connection.execute(statement)
    ]


async def count(connection: AsyncConnection) -> int:
    """How many keys are neither revoked nor expired."""
    found: int = (await connection.execute(_good(select(func.count())))).scalar_one()
    return found


async def add(
    connection: AsyncConnection,
    key_id: str,
    digest: bytes,
    name: str,
    scopes: Collection[str],
    expires: datetime | None,
) -> None:
    """Store a key."""
    row = {"key_id": key_id, "digest": digest, "name": name, "scopes": list(scopes), "expires_at": expires}
    await connection.execute(insert(_keys), row)


async def listing(connection: AsyncConnection) -> list[Listed]:
    """All keys, the oldest first."""
    statement = _listed().order_by(_keys.c.created_at, _keys.c.key_id)
    return [Listed(*row) for row in await connection.execute(statement)]


async def one(connection: AsyncConnection, key_id: str) -> Listed | None:
    """The key with this id, which stays as it is until the transaction ends."""
    found = (await connection.execute(_listed().where(_keys.c.key_id == key_id).with_for_update())).first()
    return Listed(*found) if found else None


async def revoke(connection: AsyncConnection, key_id: str) -> None:
    """End a key now."""
    await connection.execute(update(_keys).where(_keys.c.key_id == key_id).values(revoked_at=func.clock_timestamp()))


async def expire(connection: AsyncConnection, key_id: str, expires: datetime) -> None:
    """End a key then."""
    await connection.execute(update(_keys).where(_keys.c.key_id == key_id).values(expires_at=expires))


async def note_use(connection: AsyncConnection, key_ids: Iterable[str]) -> None:
    """Note that these keys are in use, unless somebody noted it within `USED_SECONDS`."""
    stale = func.clock_timestamp() - timedelta(seconds=USED_SECONDS)
    due = (
        select(_keys.c.key_id)
        .where(
            _keys.c.key_id == func.any(bindparam("key_ids", type_=ARRAY(Text))),
            or_(_keys.c.last_used_at.is_(None), _keys.c.last_used_at < stale),
        )
        # Two processes that note the same keys must not wait for each other.
        .with_for_update(skip_locked=True)
        .cte("due")
    )
    statement = update(_keys).where(_keys.c.key_id == due.c.key_id).values(last_used_at=func.clock_timestamp())
    await connection.execute(statement, {"key_ids": list(key_ids)})


async def issue(connection: AsyncConnection, digest: bytes, key_id: str | None, seconds: int, most: int) -> bool:
    """Store a ticket for so many seconds; False if the holder of the key has `most` that nobody used yet."""
    await connection.execute(delete(_tickets).where(_tickets.c.digest.in_(_swept())))
    unused = select(func.count()).select_from(_tickets).where(_tickets.c.key_id.is_not_distinct_from(key_id))
    if (await connection.execute(unused)).scalar_one() >= most:
        return False
    expires = func.clock_timestamp() + timedelta(seconds=seconds)
    await connection.execute(insert(_tickets).values(digest=digest, key_id=key_id, expires_at=expires))
    return True


async def redeem(connection: AsyncConnection, digest: bytes) -> tuple[str | None] | None:
    """Take a ticket away: the id of its key in a tuple (None: it has no key), None if there is no such ticket."""
    statement = delete(_tickets).where(_tickets.c.digest == digest)
    returning = statement.returning(_tickets.c.key_id, _tickets.c.expires_at > func.clock_timestamp())
    found = (await connection.execute(returning)).first()
    return (found[0],) if found is not None and found[1] else None


def _good(statement: Select[Any]) -> Select[Any]:
    lasting = or_(_keys.c.expires_at.is_(None), _keys.c.expires_at > func.clock_timestamp())
    return statement.where(and_(_keys.c.revoked_at.is_(None), lasting))


def _listed() -> Select[Any]:
    return select(*(_keys.c[name] for name in Listed._fields))


def _swept() -> Select[Any]:
    over = select(_tickets.c.digest).where(_tickets.c.expires_at <= func.clock_timestamp())
    return over.limit(literal(SWEPT)).with_for_update(skip_locked=True)
