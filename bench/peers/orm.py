"""What many would write first: FastAPI, SQLAlchemy's ORM, one indexed table of trades, bars grouped when asked for.

`uvicorn bench.peers.orm:app` serves `GET /klines/{symbol}?start=&end=&limit=` (ISO-8601) on the PostgreSQL that
`ORM_URL` names, one process, a pool of five connections.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Annotated

from fastapi import FastAPI, Query
from pydantic import BaseModel
from sqlalchemy import ForeignKey, Index, Numeric, func, select
from sqlalchemy.dialects.postgresql import TIMESTAMP, aggregate_order_by
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Base(DeclarativeBase):
    """The models."""


class Side(Enum):
    """The taker's side."""

    buy = "buy"
    sell = "sell"


class Token(Base):
    """A token."""

    __tablename__ = "tokens"
    id: Mapped[int] = mapped_column("token_id", primary_key=True)
    symbol: Mapped[str] = mapped_column(unique=True)


class Trade(Base):
    """A trade."""

    __tablename__ = "trades"
    id: Mapped[int] = mapped_column("trade_id", primary_key=True)
    token_id: Mapped[int] = mapped_column(ForeignKey("tokens.token_id"))
    time: Mapped[datetime] = mapped_column(TIMESTAMP(timezone=True))
    price: Mapped[Decimal] = mapped_column(Numeric)
    amount: Mapped[Decimal] = mapped_column(Numeric)
    side: Mapped[Side]


# The one that a range of a token needs.
BY_TOKEN_AND_TIME = Index("trades_token_time", Trade.token_id, Trade.time)


class Kline(BaseModel):
    """A bar of a minute."""

    open_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal
    trades: int


def address(url: str) -> str:
    """As SQLAlchemy takes it."""
    return url.replace("postgresql://", "postgresql+asyncpg://")


@asynccontextmanager
async def connected(app: FastAPI) -> AsyncIterator[None]:
    engine = create_async_engine(os.environ["ORM_URL"])
    app.state.session = async_sessionmaker(engine)
    yield
    await engine.dispose()


app = FastAPI(lifespan=connected)


@app.get("/klines/{symbol}")
async def klines(
    symbol: str, start: datetime, end: datetime, limit: Annotated[int, Query(ge=1, le=5000)] = 500
) -> list[Kline]:
    bucket = func.date_bin(timedelta(minutes=1), Trade.time, EPOCH).label("open_time")

    by_time = func.array_agg(aggregate_order_by(Trade.price, Trade.time, Trade.id))
    backwards = func.array_agg(aggregate_order_by(Trade.price, Trade.time.desc(), Trade.id.desc()))
    statement = (
        select(
            bucket,
            by_time[1].label("open"),
            func.max(Trade.price).label("high"),
            func.min(Trade.price).label("low"),
            backwards[1].label("close"),
            func.sum(Trade.amount).label("volume"),
            func.count().label("trades"),
        )
        .join(Token)
        .where(Token.symbol == symbol, Trade.time >= start, Trade.time < end)
        .group_by(bucket)
        .order_by(bucket)
        .limit(limit)
    )
    async with app.state.session() as session:
        rows = await session.execute(statement)
        return [Kline.model_validate(row, from_attributes=True) for row in rows]
