"""Forgets raw trades that are older than they are to be kept; their bars stay."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from klines.sole import Holder
from klines.writer import forget_trades

PERIOD_SECONDS = 3600.0

logger = logging.getLogger("klines.retention")


async def keep_days(days: int, holder: Holder) -> None:
    """Forget what is older than `days` days, now and every hour, while the lock is held."""
    while holder.holds:
        before = datetime.now(UTC) - timedelta(days=days)
        await forget_trades(holder.connection, before)
        logger.info("trades before %s are forgotten", before.isoformat(timespec="seconds"))
        await asyncio.sleep(PERIOD_SECONDS)
