"""The relation contract as SQLAlchemy tables: what SQL users may rely on, and what reads name. No behaviour.

The DDL is in `alembic/sql`; `tests/storage` compares the two. `klines_*` are views in both storage profiles.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Enum, Integer, MetaData, Numeric, Table, Text
from sqlalchemy.dialects.postgresql import JSONB

from klines.interval import Interval

metadata = MetaData()

tokens = Table(
    "tokens",
    metadata,
    Column("token_id", Integer, primary_key=True),
    Column("symbol", Text, nullable=False, unique=True),
    Column("name", Text),
    Column("base", Text),
    Column("quote", Text),
    Column("decimals", Integer),
    Column("supply", Numeric),
    Column("metadata", JSONB, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)

trades = Table(
    "trades",
    metadata,
    Column("token_id", Integer, primary_key=True),
    Column("trade_id", BigInteger, primary_key=True),
    Column("time", DateTime(timezone=True), primary_key=True),
    Column("price", Numeric, nullable=False),
    Column("amount", Numeric, nullable=False),
    Column("side", Enum("buy", "sell", name="trade_side"), nullable=False),
)


def _kline_columns() -> list[Column[object]]:
    numbers = ("open", "high", "low", "close", "volume", "quote_volume")
    return [
        Column("token_id", Integer, nullable=False),
        Column("time", DateTime(timezone=True), nullable=False),
        *(Column(name, Numeric, nullable=False) for name in numbers),
        Column("trades", BigInteger, nullable=False),
        Column("buy_volume", Numeric, nullable=False),
        Column("buy_quote_volume", Numeric, nullable=False),
        Column("first_trade_id", BigInteger, nullable=False),
        Column("last_trade_id", BigInteger, nullable=False),
    ]


klines: dict[Interval, Table] = {
    interval: Table(interval.relation, metadata, *_kline_columns(), info={"skip_autogenerate": True})
    for interval in Interval
}
