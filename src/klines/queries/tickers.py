"""Several tokens at once, as tickers show them: the last price, and the 24 hours of `klines.queries.day`.

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
    Select,
    Subquery,
    Text,
    bindparam,
    case,
    column,
    func,
    literal_column,
    select,
    table,
    true,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.interval import Interval
from klines.queries.day import day_window, first, live, sums
from klines.queries.feeds import feeds
from klines.queries.window import MOMENT
from klines.queries.wire import decimal_text, epoch_us
from klines.tables import tokens, trades

MAX_TOKENS = 1000


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
    opening, totals = first(token), sums(token)
    young, old, previous = _before(token)
    last = token.c.last_price
    price: Any = func.coalesce(opening.c.open, last)
    change: Any = last - price
    return (
        select(
            token.c.symbol,
            decimal_text(last),
            decimal_text(_amount(token)),
            token.c.last_trade_id,
            decimal_text(previous),
            decimal_text(price),
            decimal_text(totals.c.high),
            decimal_text(totals.c.low),
            decimal_text(change),
            decimal_text(func.round(change * 100 / price, 4)),
            decimal_text(totals.c.volume),
            decimal_text(totals.c.quote_volume),
            totals.c.trades,
            opening.c.first_trade_id,
        )
        .select_from(token)
        .outerjoin(opening, true())
        .outerjoin(totals, true())
        .outerjoin(young, true())
        .outerjoin(old, true())
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


def _before(token: Subquery) -> tuple[Any, Any, Any]:
    """Laterally the last minute before the 24 hours, live and retired, and the close of the later of them."""
    retired = table("retired_1m", *map(column, ("token_id", "time", "close")), schema="klines_internal")
    levels = table("levels", column("seconds"), column("seam"), schema="klines_internal")
    minute: Any = literal_column(str(Interval.M1.seconds))
    seam = select(levels.c.seam).where(levels.c.seconds == minute).scalar_subquery()
    young = _latest(live, token).where(live.c.seconds == minute).lateral("young")
    # Nothing retired is later than a live bar above the seam; below it a late trade may have brought an old bar back.
    old = (
        _latest(retired, token).where(func.coalesce(young.c.time < seam, true())).correlate(token, young).lateral("old")
    )
    return young, old, case((old.c.time > young.c.time, old.c.close), else_=func.coalesce(young.c.close, old.c.close))


def _latest(bars: Any, token: Subquery) -> Select[Any]:
    return (
        select(bars.c.time, bars.c.close)
        .where(bars.c.token_id == token.c.token_id, bars.c.time < bindparam("start", type_=MOMENT))
        .order_by(bars.c.time.desc())
        .limit(literal_column("1"))
        .correlate(token)
    )
