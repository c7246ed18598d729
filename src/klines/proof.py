"""Connections of a pool prove that they answer before they are used, unless they just did.

SQLAlchemy's own `pool_pre_ping` asks before every use, which costs a round trip or three: as much as a short page.
"""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import event
from sqlalchemy.exc import InvalidatePoolError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import ConnectionPoolEntry

_USED = "klines_used"


def prove_connections(engine: AsyncEngine, seconds: float) -> None:
    """Ask each connection of the engine, unless it is new, or was used within so many seconds and is still open.

    Where one does not answer, the whole pool is opened anew.
    """

    def used(_: object, record: ConnectionPoolEntry) -> None:
        record.info[_USED] = time.monotonic()

    def prove(connection: Any, record: ConnectionPoolEntry, _: object) -> None:
        at = record.info.get(_USED)
        if at is None or (time.monotonic() - at < seconds and not connection.driver_connection.is_closed()):
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine.sync_engine, "checkin", used)
    event.listen(engine.sync_engine, "checkout", prove)
