"""Forgets what is older than it is to be kept: raw trades, whose bars stay, and the tape that streams resume from."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from klines.sole import Holder
from klines.writer import forget_tape, forget_trades

PERIOD_SECONDS = 3600.0
# When a policy had to be moved first, or a refresh is under way: it has its time.
AGAIN_SECONDS = 60.0
TAPE_SECONDS = 900
SWEEP_SECONDS = 30.0

logger = logging.getLogger("klines.retention")


async def keep_days(days: int, holder: Holder) -> None:
    """Forget what is older than `days` days, now and every hour, while the lock is held."""
    while holder.holds:
        before = datetime.now(UTC) - timedelta(days=days)
        forgotten = await forget_trades(holder.connection, before)
        what = "are forgotten" if forgotten else "are refused from now on, and forgotten in a minute"
        logger.info("trades before %s %s", before.isoformat(timespec="seconds"), what)
        await asyncio.sleep(PERIOD_SECONDS if forgotten else AGAIN_SECONDS)


async def sweep_tape(holder: Holder) -> None:
    """Keep the tape short, now and every half minute: a stream can be resumed for `TAPE_SECONDS`."""
    while holder.holds:
        await forget_tape(holder.connection, TAPE_SECONDS)
        await asyncio.sleep(SWEEP_SECONDS)
