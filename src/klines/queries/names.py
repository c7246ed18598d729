"""The symbols of tokens by their ids."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ARRAY, Integer, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.tables import tokens


async def symbols(connection: AsyncConnection, token_ids: Collection[int]) -> dict[int, str]:
    """The canonical symbols of these tokens; ids that are none are left out."""
    wanted = func.any(bindparam("token_ids", type_=ARRAY(Integer)))
    statement = select(tokens.c.token_id, tokens.c.symbol).where(tokens.c.token_id == wanted)
    return {row[0]: row[1] for row in await connection.execute(statement, {"token_ids": list(token_ids)})}
