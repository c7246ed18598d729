"""How far the trades of a token have come, counted in the order of their commits."""

from __future__ import annotations

from collections.abc import Collection
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import ARRAY, BigInteger, Integer, Numeric, Text, bindparam, column, func, select, table
from sqlalchemy.dialects.postgresql import OID
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries.window import MOMENT
from klines.queries.wire import decimal_text, epoch_us
from klines.tables import tokens

feeds = table(
    "feeds",
    *map(column, ("token_id", "sequence", "last_trade_id", "last_time", "last_price")),
    schema="klines_internal",
)


epochs = table("epoch", column("epoch", Text), schema="klines_internal")

databases = table("pg_database", column("oid"), column("datname"), schema="pg_catalog")

tape = table(
    "tape",
    column("token_id", Integer),
    column("sequence", BigInteger),
    column("trade_ids", ARRAY(BigInteger)),
    column("times", ARRAY(MOMENT)),
    column("prices", ARRAY(Numeric)),
    column("amounts", ARRAY(Numeric)),
    column("sides", ARRAY(Text)),
    schema="klines_internal",
)


class Last(NamedTuple):
    """The last trade of a token by (time, trade_id); the price is exact text."""

    symbol: str
    trade_id: int
    time_us: int
    price: str


class Extent(NamedTuple):
    """How many trades a token ever had, and the time of the last one."""

    trades: int
    last_us: int


async def extent(connection: AsyncConnection, token_id: int) -> Extent | None:
    """The extent of a token's trades; None without any."""
    statement = select(feeds.c.sequence, epoch_us(feeds.c.last_time)).where(feeds.c.token_id == bindparam("token"))
    found = (await connection.execute(statement, {"token": token_id})).first()
    return Extent(*found) if found else None


async def epoch(connection: AsyncConnection) -> str:
    """The name under which this database hands out cursors; a copy, a restored dump, a promoted standby have another.

    Each of them may have lost trades whose numbers are given out again. All it is made of stays over a restart.
    """
    tape_id = func.to_regclass("klines_internal.tape").cast(OID)
    timeline = func.left(func.pg_walfile_name(func.pg_current_wal_lsn()), 8)
    system = func.pg_control_system().table_valued("system_identifier").c.system_identifier
    database = select(databases.c.oid).where(databases.c.datname == func.current_database())
    parts = (select(epochs.c.epoch), select(system), database)
    statement = select(func.concat_ws(" ", *(part.scalar_subquery() for part in parts), timeline, tape_id))
    place = (await connection.execute(statement)).scalar_one()
    return blake2b(str(place).encode(), digest_size=6).hexdigest()


async def sequences(connection: AsyncConnection, token_ids: Collection[int]) -> dict[int, int]:
    """How many trades these tokens ever had, by id; 0 without any."""
    statement = select(feeds.c.token_id, feeds.c.sequence).where(
        feeds.c.token_id == func.any(bindparam("tokens", type_=ARRAY(Integer)))
    )
    rows = await connection.execute(statement, {"tokens": list(token_ids)})
    return dict.fromkeys(token_ids, 0) | {row[0]: row[1] for row in rows}


async def last_trades(connection: AsyncConnection, symbols: Collection[str]) -> dict[str, Last]:
    """The last trade of each of these tokens that has one, by symbol."""
    statement = (
        select(tokens.c.symbol, feeds.c.last_trade_id, epoch_us(feeds.c.last_time), decimal_text(feeds.c.last_price))
        .join_from(tokens, feeds, tokens.c.token_id == feeds.c.token_id)
        .where(tokens.c.symbol.in_(bindparam("symbols", type_=Text, expanding=True)))
    )
    rows = await connection.execute(statement, {"symbols": list(symbols)})
    return {row[0]: Last(*row) for row in rows}
