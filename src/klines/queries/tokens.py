"""Tokens: their ids, what is known of them, and their last 24 hours (`klines.queries.day`).

As everywhere in the field, the change is the last price against the first price of the 24 hours; a token without
trades in them has change 0 and volume 0.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from functools import cache
from typing import Any, Literal

from sqlalchemy import (
    ARRAY,
    Select,
    Subquery,
    Text,
    bindparam,
    func,
    literal,
    or_,
    select,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.models import Token
from klines.queries.day import day_window, first, sums
from klines.queries.feeds import feeds
from klines.queries.wire import Column, decimal_text, epoch_ms
from klines.tables import tokens

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


@cache
def _one() -> Select[Any]:
    return _select(_known().where(tokens.c.symbol == bindparam("symbol")).subquery("token"))


@cache
def _named() -> Select[Any]:
    wanted = func.any(bindparam("symbols", type_=ARRAY(Text)))
    return _select(_known().where(tokens.c.symbol == wanted).subquery("token"))


@cache
def _listing(sort: Sort) -> Select[Any]:
    wanted: Column = func.lower(bindparam("search"))
    names = (tokens.c.symbol, tokens.c.name)
    found = _known().where(or_(*(func.strpos(func.lower(name), wanted) > 0 for name in names)))
    # What a page shows of its tokens is read for those of the page, what sorts them for all that were found.
    if sort in BY_NAME:
        order = [tokens.c.created_at.desc()] if sort == "newest" else []
        token = _paged(found.order_by(*order, tokens.c.symbol)).subquery("token")
        order = [token.c.created_at.desc()] if sort == "newest" else []
        return _select(token).order_by(*order, token.c.symbol)
    every = found.subquery("every")
    source, rank = _rank(sort, every)
    ranked = select(every, rank.label("rank")).select_from(every).outerjoin(source, true())
    token = _paged(ranked.order_by(rank.desc().nulls_last(), every.c.symbol)).subquery("token")
    return _select(token).order_by(token.c.rank.desc().nulls_last(), token.c.symbol)


def _rank(sort: Sort, token: Subquery) -> tuple[Any, Column]:
    """What of the 24 hours sorts the tokens, and the number that does."""
    if sort == "change":
        opening = first(token)
        return opening, _percent(token, opening)
    totals = sums(token)
    return totals, func.coalesce(totals.c.quote_volume if sort == "volume" else totals.c.trades, 0)


def _paged(statement: Select[Any]) -> Select[Any]:
    return statement.limit(bindparam("limit")).offset(bindparam("offset"))


def _known() -> Select[Any]:
    last = (feeds.c.last_time, feeds.c.last_price)
    return select(tokens, *last).outerjoin_from(tokens, feeds, feeds.c.token_id == tokens.c.token_id)


def _change(token: Subquery, opening: Any) -> Column:
    change: Column = token.c.last_price - func.coalesce(opening.c.open, token.c.last_price)
    return change


def _percent(token: Subquery, opening: Any) -> Column:
    percent: Column = func.round(_change(token, opening) * 100 / func.coalesce(opening.c.open, token.c.last_price), 4)
    return percent


def _select(token: Subquery) -> Select[Any]:
    opening, totals = first(token), sums(token)
    zero = literal("0")
    return (
        select(
            *(token.c[name] for name in ("symbol", "name", "base", "quote", "decimals")),
            decimal_text(token.c.supply),
            token.c.metadata,
            epoch_ms(token.c.created_at),
            decimal_text(token.c.last_price),
            epoch_ms(token.c.last_time),
            decimal_text(_change(token, opening)),
            decimal_text(_percent(token, opening)),
            decimal_text(totals.c.high),
            decimal_text(totals.c.low),
            func.coalesce(decimal_text(totals.c.volume), zero),
            func.coalesce(decimal_text(totals.c.quote_volume), zero),
            func.coalesce(totals.c.trades, 0),
        )
        .select_from(token)
        .outerjoin(opening, true())
        .outerjoin(totals, true())
    )
