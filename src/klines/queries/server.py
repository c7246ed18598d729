"""What the server says of itself."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

DURABILITY = ("fsync", "full_page_writes", "synchronous_commit")


async def durability(connection: AsyncConnection) -> dict[str, str]:
    """The settings on which the survival of an acknowledged trade depends, by name."""
    row = (await connection.execute(select(*(func.current_setting(name) for name in DURABILITY)))).one()
    return dict(zip(DURABILITY, row, strict=True))
