"""Tokens: their ids, what is known of them, and their last 24 hours.

The 24 hours are `[start, now]` with `start` cut to the minute, put together from whole hours and the minutes before
the first of them: exact, and at most 84 rows a token. As everywhere in the field, the change is the last price
against the first price of the window; a token without trades in it has change 0 and volume 0.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Numeric,
    Select,
    Subquery,
    Text,
    bindparam,
    cast,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.interval import Interval
from klines.models import Token
from klines.queries.feeds import feeds
from klines.queries.window import MOMENT
from klines.queries.wire import Column, decimal_text, epoch_ms
from klines.tables import klines, tokens

Sort = Literal["symbol", "volume", "change", "trades", "newest"]
# Those that take no more bars than a page shows.
BY_NAME = frozenset({"symbol", "newest"})
SORTS: tuple[Sort, ...] = ("symbol", "volume", "change", "trades", "newest")


async def token_id(connection: AsyncConnection, symbol: str) -> int | None:
    """The id of a canonical symbol, None if no token has it."""
    statement = select(tokens.c.token_id).where(tokens.c.symbol == bindparam("symbol"))
    return (await connection.execute(statement, {"symbol": symbol})).scalar()


async def one(connection: AsyncConnection, symbol: str, now: datetime) -> Token | None:
    """The token with a canonical symbol."""
    found = (await connection.execute(_one(), {"symbol": symbol} | day_window(now))).first()
    return Token(*found) if found else None


async def named(connection: AsyncConnection, symbols: Collection[str], now: datetime) -> list[Token]:
    """Those of the canonical symbols that are tokens, in any order."""
    values = {"symbols": list(symbols)} | day_window(now)
    return [Token(*row) for row in await connection.execute(_named(), values)]


async def listing(
    connection: AsyncConnection, now: datetime, *, search: str, sort: Sort, limit: int, offset: int
) -> list[Token]:
    """Tokens whose symbol or name contains `search` (case-insensitively), best first by `sort`."""
    values = {"search": search, "limit": limit, "offset": offset} | day_window(now)
    return [Token(*row) for row in await connection.execute(_listing(sort), values)]


def day_window(now: datetime) -> dict[str, datetime]:
    """The parameters of `day`: where its 24 hours begin, and the first whole hour in them."""
    start = now.replace(second=0, microsecond=0) - timedelta(days=1)
    hour = start.replace(minute=0)
    return {"start": start, "hour": hour if hour == start else hour + timedelta(hours=1)}


@cache
def _one() -> Select[Any]:
    return _select(select(tokens).where(tokens.c.symbol == bindparam("symbol")).subquery("token"))


@cache
def _named() -> Select[Any]:
    wanted = func.any(bindparam("symbols", type_=ARRAY(Text)))
    return _select(select(tokens).where(tokens.c.symbol == wanted).subquery("token"))


@cache
def _listing(sort: Sort) -> Select[Any]:
    wanted: Column = func.lower(bindparam("search"))
    names = (tokens.c.symbol, tokens.c.name)
    found = select(tokens).where(or_(*(func.strpos(func.lower(name), wanted) > 0 for name in names)))
    if sort in BY_NAME:
        # What can be sorted without the bars is cut before they are read.
        order = [tokens.c.created_at.desc()] if sort == "newest" else []
        found = _paged(found.order_by(*order, tokens.c.symbol))
        columns = (statement := _select(found.subquery("token"))).selected_columns
        return statement.order_by(*([columns.created_at.desc()] if sort == "newest" else []), columns.symbol)
    columns = (statement := _select(found.subquery("token"))).selected_columns
    best: dict[str, Any] = {
        "volume": cast(columns.quote_volume_24h, Numeric).desc(),
        "change": cast(columns.price_change_percent_24h, Numeric).desc().nulls_last(),
        "trades": columns.trades_24h.desc(),
    }
    return _paged(statement.order_by(best[sort], columns.symbol))


def _paged(statement: Select[Any]) -> Select[Any]:
    return statement.limit(bindparam("limit")).offset(bindparam("offset"))


def _select(token: Subquery) -> Select[Any]:
    recent = day(token)
    last = feeds.c.last_price
    first: Column = func.coalesce(recent.c.opens[1], last)
    change: Column = last - first
    percent: Column = func.round(change * 100 / first, 4)
    zero = literal("0")
    return (
        select(
            *(token.c[name] for name in ("symbol", "name", "base", "quote", "decimals")),
            decimal_text(token.c.supply),
            token.c.metadata,
            epoch_ms(token.c.created_at).label("created_at"),
            decimal_text(last),
            epoch_ms(feeds.c.last_time),
            decimal_text(change),
            decimal_text(percent).label("price_change_percent_24h"),
            decimal_text(recent.c.high),
            decimal_text(recent.c.low),
            func.coalesce(decimal_text(recent.c.volume), zero),
            func.coalesce(decimal_text(recent.c.quote_volume), zero).label("quote_volume_24h"),
            cast(func.coalesce(recent.c.trades, 0), BigInteger).label("trades_24h"),
        )
        .select_from(token)
        .outerjoin(feeds, feeds.c.token_id == token.c.token_id)
        .outerjoin(recent, true())
    )


def day(token: Subquery) -> Any:
    """The last 24 hours of each `token`, laterally: by index, at most 84 bars each."""
    minutes, hours = klines[Interval.M1], klines[Interval.H1]
    start, hour = bindparam("start", type_=MOMENT), bindparam("hour", type_=MOMENT)
    names = ("time", "open", "high", "low", "volume", "quote_volume", "trades", "first_trade_id")
    bars = (
        select(*(minutes.c[name] for name in names))
        .where(minutes.c.token_id == token.c.token_id, minutes.c.time >= start, minutes.c.time < hour)
        .correlate(token)
        .union_all(
            select(*(hours.c[name] for name in names))
            .where(hours.c.token_id == token.c.token_id, hours.c.time >= hour)
            .correlate(token)
        )
        .subquery("bars")
    )
    return select(
        func.array_agg(bars.c.open, type_=ARRAY(Numeric)).aggregate_order_by(bars.c.time).label("opens"),
        func.array_agg(bars.c.first_trade_id, type_=ARRAY(BigInteger))
        .aggregate_order_by(bars.c.time)
        .label("first_trade_ids"),
        func.max(bars.c.high).label("high"),
        func.min(bars.c.low).label("low"),
        func.sum(bars.c.volume).label("volume"),
        func.sum(bars.c.quote_volume).label("quote_volume"),
        func.sum(bars.c.trades).label("trades"),
    ).lateral("day")
