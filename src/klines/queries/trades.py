"""Stored trades of one token, in the order that decides open and close: (time, trade_id)."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import BigInteger, Integer, Select, Text, and_, bindparam, cast, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries.feeds import extent, tape
from klines.queries.window import Shape, Window
from klines.queries.wire import Column, decimal_text, epoch_ms, epoch_us, json_array, json_object, quoted
from klines.tables import trades

# How far back the latest trades are looked for, in turn: a hypertable's plan then names days, not all of its chunks.
DAY_US = 86_400_000_000
REACHES_US = (DAY_US, 30 * DAY_US, 1000 * DAY_US)


async def page(connection: AsyncConnection, token_id: int, window: Window, until: int | None = None) -> str:
    """The trades of a window as the inside of a JSON array, ascending; if given, only the first `until` commits."""
    known = await extent(connection, token_id)
    if known is None:
        return ""
    values: dict[str, object] = {} if until is None else {"until": until}
    stored = known.trades if until is None else min(until, known.trades)
    if window.from_us is None:
        end_us = min(known.last_us + 1, known.last_us + 1 if window.to_us is None else window.to_us)
        for reach_us in REACHES_US:
            narrowed = window._replace(since_us=max(end_us - reach_us, 0))
            statement = _page(narrowed.shape, until is not None)
            text, count = (await connection.execute(statement, narrowed.values(token_id) | values)).one()
            if count >= min(window.limit, stored):
                return text or ""
    text, _ = (await connection.execute(_page(window.shape, until is not None), window.values(token_id) | values)).one()
    return text or ""


async def from_id(connection: AsyncConnection, token_id: int, first: int, limit: int) -> str:
    """The trades whose id is `first` or greater, ascending by (trade_id, time), as the inside of a JSON array.

    Ids need not ascend with time, and no index knows them: this reads the keys of all the token's trades.
    """
    values = {"token": token_id, "first": first, "page": limit}
    return (await connection.execute(_from_id(), values)).scalar() or ""


@cache
def _from_id() -> Select[Any]:
    # The keys alone come out of the primary key's index; only those of the page are looked up.
    keys = (
        select(trades.c.trade_id, trades.c.time)
        .where(
            trades.c.token_id == bindparam("token", type_=Integer),
            trades.c.trade_id >= bindparam("first", type_=BigInteger),
        )
        .order_by(trades.c.trade_id, trades.c.time)
        .limit(bindparam("page", type_=Integer))
        .subquery("keys")
    )
    same = and_(
        trades.c.token_id == bindparam("token", type_=Integer),
        trades.c.trade_id == keys.c.trade_id,
        trades.c.time == keys.c.time,
    )
    rows = select(trades).join_from(keys, trades, same).subquery("rows")
    return select(json_array(trade_json(rows), rows.c.trade_id, rows.c.time))


@cache
def _page(shape: Shape, bounded: bool) -> Select[Any, int]:
    wanted = shape.restrict(select(trades), trades)
    if bounded:
        taped = select(func.unnest(tape.c.times), func.unnest(tape.c.trade_ids)).where(
            tape.c.token_id == bindparam("token", type_=Integer),
            tape.c.sequence > bindparam("until", type_=BigInteger),
        )
        wanted = wanted.where(tuple_(trades.c.time, trades.c.trade_id).not_in(taped))
    rows = shape.page(wanted, trades.c.time, trades.c.trade_id).subquery("rows")
    return select(json_array(trade_json(rows), rows.c.time, rows.c.trade_id), func.count()).select_from(rows)


def trade_json(row: Any) -> Column:
    """A trade as REST and the streams show it."""
    return json_object(
        {
            "trade_id": [row.c.trade_id],
            "time": [epoch_ms(row.c.time)],
            "time_us": [epoch_us(row.c.time)],
            "price": quoted(decimal_text(row.c.price)),
            "amount": quoted(decimal_text(row.c.amount)),
            "side": quoted(cast(row.c.side, Text)),
        }
    )
