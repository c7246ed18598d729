"""What the bars of a token were made of, as one word: as long as it is the same, so are they.

Whoever writes trades, retires bars or corrects one updates the token's row in `klines_internal.feeds`, in the same
transaction (revision 0003, `fold_trades_v1` and `retire_batch_v1`). `sequence` alone would miss what only takes the
row's lock; `xmin` names the transaction that wrote the row last. The word means nothing in another database.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import cache
from typing import Any

from sqlalchemy import ARRAY, Integer, ScalarSelect, Select, Text, bindparam, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries.direct import compiled, fetched
from klines.queries.feeds import feeds
from klines.queries.wire import Column

Version = str | None
"""None: the token has never traded."""
Found = dict[int, str]

_WORD: Column = func.concat_ws(literal_column("' '", Text), feeds.c.sequence, literal_column("feeds.xmin"))


def version_of(token: Column) -> ScalarSelect[Any]:
    """The version of a token, inside a statement that reads its bars, and so of the same moment."""
    return select(_WORD).where(feeds.c.token_id == token).scalar_subquery()


async def versions(connection: AsyncConnection, token_ids: Collection[int]) -> Found:
    """The versions of these tokens; those that never traded are missing."""
    return {row[0]: row[1] for row in await fetched(connection, _statement(), {"tokens": list(token_ids)})}


async def prepared(connection: AsyncConnection) -> Callable[[Collection[int]], Awaitable[Found]]:
    """`versions` on one connection, for whoever keeps it and asks thousands of times a second."""
    driver: Any = (await connection.get_raw_connection()).driver_connection
    statement = await driver.prepare(compiled(_statement()).text)

    async def read(token_ids: Collection[int]) -> Found:
        return {row[0]: row[1] for row in await statement.fetch(list(token_ids))}

    return read


@cache
def _statement() -> Select[Any]:
    wanted = bindparam("tokens", type_=ARRAY(Integer))
    return select(feeds.c.token_id, _WORD).where(feeds.c.token_id == func.any(wanted))
