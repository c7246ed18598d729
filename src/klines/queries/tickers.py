"""Several tokens at once, as tickers show them: the last price, and the 24 hours of `klines.queries.tokens`.

Without symbols these are the `MAX_TOKENS` tokens that were traded last, so that an answer stays bounded and the tokens
that nobody trades any more are those left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Select,
    Subquery,
    Text,
    bindparam,
    cast,
    column,
    func,
    literal_column,
    select,
    table,
    true,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries.feeds import feeds
from klines.queries.tokens import day, day_window
from klines.queries.window import MOMENT
from klines.queries.wire import decimal_text, epoch_us
from klines.tables import tokens, trades

MAX_TOKENS = 1000

_BAR = ("token_id", "time", "close", "seconds")


class Listed(NamedTuple):
    """A token, and its last trade's price (exact text) and time (epoch microseconds), None without one."""

    symbol: str
    base: str | None
    quote: str | None
    decimals: int | None
    price: str | None
    time_us: int | None


class Day(NamedTuple):
    """The last 24 hours of a token; decimals are exact text. Without a trade in them there is no high, low or first id.

    `previous` is the last close before them, `amount` the last trade's, None if retention took it.
    """

    symbol: str
    price: str | None
    amount: str | None
    last_trade_id: int | None
    previous: str | None
    open: str | None
    high: str | None
    low: str | None
    change: str | None
    change_percent: str | None
    volume: str | None
    quote_volume: str | None
    trades: int | None
    first_trade_id: int | None


async def listed(connection: AsyncConnection, symbols: Sequence[str] | None) -> list[Listed]:
    """The tokens with these canonical symbols, or those traded last, ascending by symbol; unknown ones are left out."""
    rows = await connection.execute(_listed(symbols is not None), _values(symbols))
    return sorted(Listed(*row) for row in rows)


async def days(connection: AsyncConnection, symbols: Sequence[str] | None, now: datetime) -> list[Day]:
    """The last 24 hours of the same tokens."""
    rows = await connection.execute(_days(symbols is not None), _values(symbols) | day_window(now))
    return sorted(Day(*row) for row in rows)


def day_begins(now: datetime) -> datetime:
    """Where the 24 hours begin."""
    return day_window(now)["start"]


def _values(symbols: Sequence[str] | None) -> dict[str, object]:
    return {"most": MAX_TOKENS} if symbols is None else {"symbols": list(symbols)}


@cache
def _listed(named: bool) -> Select[Any]:
    token = _tokens(named)
    return select(
        *(token.c[name] for name in ("symbol", "base", "quote", "decimals")),
        decimal_text(token.c.last_price),
        epoch_us(token.c.last_time),
    )


@cache
def _days(named: bool) -> Select[Any]:
    token = _tokens(named)
    recent, before = day(token), _before(token)
    last = token.c.last_price
    first: Any = func.coalesce(recent.c.opens[1], last)
    change: Any = last - first
    return (
        select(
            token.c.symbol,
            decimal_text(last),
            decimal_text(_amount(token)),
            token.c.last_trade_id,
            decimal_text(before.c.close),
            decimal_text(first),
            decimal_text(recent.c.high),
            decimal_text(recent.c.low),
            decimal_text(change),
            decimal_text(func.round(change * 100 / first, 4)),
            decimal_text(recent.c.volume),
            decimal_text(recent.c.quote_volume),
            cast(recent.c.trades, BigInteger),
            recent.c.first_trade_ids[1],
        )
        .select_from(token)
        .outerjoin(recent, true())
        .outerjoin(before, true())
    )


def _tokens(named: bool) -> Subquery:
    found = select(
        *(tokens.c[name] for name in ("token_id", "symbol", "base", "quote", "decimals")),
        *(feeds.c[name] for name in ("last_trade_id", "last_time", "last_price")),
    ).outerjoin_from(tokens, feeds, feeds.c.token_id == tokens.c.token_id)
    if named:
        found = found.where(tokens.c.symbol == func.any(bindparam("symbols", type_=ARRAY(Text))))
    else:
        found = found.order_by(feeds.c.last_time.desc().nulls_last(), tokens.c.symbol).limit(bindparam("most"))
    return found.subquery("token")


def _amount(token: Subquery) -> Any:
    return (
        select(trades.c.amount)
        .where(
            trades.c.token_id == token.c.token_id,
            trades.c.time == token.c.last_time,
            trades.c.trade_id == token.c.last_trade_id,
        )
        .correlate(token)
        .scalar_subquery()
    )


def _before(token: Subquery) -> Any:
    # Either side may hold the later one, as a late trade brings an old bar back; each is one step in an index.
    live = table("live_klines", *map(column, _BAR), schema="klines_internal")
    retired = table("retired_1m", *map(column, _BAR[:3]), schema="klines_internal")
    young = _latest(live, token).where(live.c.seconds == literal_column("60")).subquery("young")
    old = _latest(retired, token).subquery("old")
    both = union_all(select(young), select(old)).subquery("both")
    return select(both.c.close).order_by(both.c.time.desc()).limit(literal_column("1")).lateral("before")


def _latest(bars: Any, token: Subquery) -> Select[Any]:
    return (
        select(bars.c.time, bars.c.close)
        .where(bars.c.token_id == token.c.token_id, bars.c.time < bindparam("start", type_=MOMENT))
        .order_by(bars.c.time.desc())
        .limit(literal_column("1"))
        .correlate(token)
    )
