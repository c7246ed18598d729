"""Stored trades of one token, in the order that decides open and close: (time, trade_id)."""

from __future__ import annotations

from functools import cache
from typing import Any

from sqlalchemy import Select, Text, cast, select
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.queries.window import Shape, Window
from klines.queries.wire import Column, decimal_text, epoch_ms, epoch_us, json_array, json_object, quoted
from klines.tables import trades


async def page(connection: AsyncConnection, token_id: int, window: Window) -> str:
    """The trades of a window as the inside of a JSON array, ascending."""
    text = (await connection.execute(_page(window.shape), window.values(token_id))).scalar_one()
    return text or ""


@cache
def _page(shape: Shape) -> Select[Any]:
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
    return select(json_array(trade, rows.c.time, rows.c.trade_id))
