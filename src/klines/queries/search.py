"""Tokens by a part of their name, the likeliest first: for a search box, which asks at every key."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Integer, Select, Text, bindparam, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries.wire import Column
from klines.tables import tokens


class Found(NamedTuple):
    """A token as a list of matches shows it."""

    symbol: str
    name: str | None


async def matching(connection: AsyncConnection, text: str, limit: int) -> list[Found]:
    """At most `limit` tokens whose symbol or name contains `text` (case-insensitively), all of them if it is empty.

    Symbols that begin with it come before those that have it inside, and these before names; of each the shortest
    first, so that a symbol that is exactly `text` is the first of all.
    """
    return [Found(*row) for row in await connection.execute(_matching(), {"text": text, "limit": limit})]


@cache
def _matching() -> Select[Any]:
    wanted: Column = func.lower(bindparam("text", type_=Text))
    in_symbol, in_name = (func.strpos(func.lower(name), wanted) for name in (tokens.c.symbol, tokens.c.name))
    return (
        select(tokens.c.symbol, tokens.c.name)
        .where(or_(in_symbol > 0, in_name > 0))
        .order_by(in_symbol == 0, in_symbol > 1, func.length(tokens.c.symbol), tokens.c.symbol)
        .limit(bindparam("limit", type_=Integer))
    )
