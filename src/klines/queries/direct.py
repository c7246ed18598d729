"""Statements that run often: compiled once, and run by the driver without what SQLAlchemy does for each run.

That is most of a millisecond, which is as long as the server needs for a few rows. Parameters must be what the driver
takes as they are: integers, texts, moments, spans, and lists of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Select
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.ext.asyncio import AsyncConnection

Rows = Sequence[Sequence[Any]]


class Compiled(NamedTuple):
    """A statement as the driver takes it."""

    text: str
    names: Sequence[str]
    constants: Mapping[str, Any]

    def arguments(self, values: Mapping[str, object]) -> list[Any]:
        """The parameters in their order, from those that are given by name."""
        return [values[name] if name in values else self.constants[name] for name in self.names]


async def fetched(connection: AsyncConnection, statement: Select[Any], values: Mapping[str, object]) -> Rows:
    """The rows of a statement; raises what the driver raises, as itself.

    A transaction of its own: the connection must be one that commits by itself.
    """
    found = compiled(statement)
    driver: Any = (await connection.get_raw_connection()).driver_connection
    rows: Rows = await driver.fetch(found.text, *found.arguments(values))
    return rows


# By the statement itself: whoever asks keeps theirs, which are few.
@lru_cache(maxsize=256)
def compiled(statement: Select[Any]) -> Compiled:
    """The statement as the driver takes it."""
    made: Any = statement.compile(dialect=asyncpg.dialect())  # type: ignore[no-untyped-call]
    return Compiled(made.string, made.positiontup, made.params)
