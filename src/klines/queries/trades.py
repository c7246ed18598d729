"""Stored trades of one token, in the order that decides open and close: (time, trade_id)."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Select, Text, cast, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries.feeds import extent
from klines.queries.window import Shape, Window
from klines.queries.wire import Column, decimal_text, epoch_ms, epoch_us, json_array, json_object, quoted
from klines.tables import trades

# How far back the latest trades are looked for, in turn: a hypertable's plan then names days, not all of its chunks.
DAY_US = 86_400_000_000
REACHES_US = (DAY_US, 30 * DAY_US, 1000 * DAY_US)


async def page(connection: AsyncConnection, token_id: int, window: Window) -> str:
    """The trades of a window as the inside of a JSON array, ascending."""
    known = await extent(connection, token_id)
    if known is None:
        return ""
    if window.from_us is None:
        end_us = min(known.last_us + 1, known.last_us + 1 if window.to_us is None else window.to_us)
        for reach_us in REACHES_US:
            narrowed = window._replace(since_us=max(end_us - reach_us, 0))
            text, count = (await connection.execute(_page(narrowed.shape), narrowed.values(token_id))).one()
            if count >= min(window.limit, known.trades):
                return str(text)
    text, _ = (await connection.execute(_page(window.shape), window.values(token_id))).one()
    return text or ""


@cache
def _page(shape: Shape) -> Select[Any, int]:
    rows = shape.page(shape.restrict(select(trades), trades), trades.c.time, trades.c.trade_id).subquery("rows")
    trade: Column = json_object(
        {
            "trade_id": [rows.c.trade_id],
            "time": [epoch_ms(rows.c.time)],
            "time_us": [epoch_us(rows.c.time)],
            "price": quoted(decimal_text(rows.c.price)),
            "amount": quoted(decimal_text(rows.c.amount)),
            "side": quoted(cast(rows.c.side, Text)),
        }
    )
    return select(json_array(trade, rows.c.time, rows.c.trade_id), func.count()).select_from(rows)
