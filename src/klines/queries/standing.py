"""How a database stands, for whoever operates it: one statement, cheap enough to run every few seconds."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Float, Select, Text, cast, column, extract, func, literal, select, table
from sqlalchemy.dialects.postgresql import REGCLASS
from sqlalchemy.ext.asyncio import AsyncConnection

from klines.tables import tokens

levels = table("levels", *map(column, ("seconds", "relation", "keep", "seam")), schema="klines_internal")
disagreements = table("disagreements", schema="klines_internal")
relations = table("pg_class", column("oid"), column("reltuples"), schema="pg_catalog")
sessions = table("pg_stat_activity", column("datname"), schema="pg_catalog")


class Standing(NamedTuple):
    """`notify_queue` is the part of the notification queue in use, 0 to 1; `live_rows` is PostgreSQL's estimate.

    `seam_lag` has, by relation, the seconds by which a seam is behind where it should be; empty without seams.
    `disagreements` are bars that differed from their trades, of the last 30 days.
    """

    notify_queue: float
    tokens: int
    database_bytes: int
    sessions: int
    live_rows: float
    seam_lag: dict[str, float]
    disagreements: int


async def standing(connection: AsyncConnection, *, seams: bool) -> Standing:
    """How the database stands; `seams` where its profile has bars that retire."""
    row = (await connection.execute(_statement(seams))).one()
    return Standing._make((*row[:5], msgspec.json.decode(row[5] or "{}"), row[6]))


@cache
def _statement(seams: bool) -> Select[Any]:
    database = func.current_database()
    live = cast(literal("klines_internal.live_klines"), REGCLASS)
    behind = cast(extract("epoch", func.now() - levels.c.keep - levels.c.seam), Float)
    lags = select(cast(func.json_object_agg(levels.c.relation, behind), Text)).where(func.isfinite(levels.c.seam))
    wrong = select(func.count()).select_from(disagreements).scalar_subquery() if seams else literal(0)
    return select(
        func.pg_notification_queue_usage(),
        select(func.count()).select_from(tokens).scalar_subquery(),
        func.pg_database_size(database),
        select(func.count()).select_from(sessions).where(sessions.c.datname == database).scalar_subquery(),
        select(cast(func.greatest(relations.c.reltuples, 0), Float)).where(relations.c.oid == live).scalar_subquery(),
        lags.scalar_subquery(),
        wrong,
    )
