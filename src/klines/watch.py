"""Ends what analysts let last too long: the time limits of their role are defaults, which a session can lift.

A transaction that stays open holds back the vacuum of everybody's tables; one whose session listens also holds back
the queue of notifications, which fails commits when it is full. So a session is ended, not asked: soon after its
statement or transaction has lasted as long as it may, or while that queue fills. One line of the log for each.
"""

from __future__ import annotations

import asyncio
import logging

from klines.queries.roles import end_analyst_sessions
from klines.sole import Holder

MAX_PERIOD_SECONDS = 10.0

logger = logging.getLogger("klines.watch")


async def end_long_sessions(seconds: int, holder: Holder) -> None:
    """End what has lasted longer than `seconds`, now and again while the lock is held."""
    while holder.holds:
        for ended in await end_analyst_sessions(holder.connection, seconds):
            logger.warning(
                "ended the session of %s, server process %d: %s, %d s", ended.login, ended.pid, ended.why, ended.seconds
            )
        await asyncio.sleep(min(MAX_PERIOD_SECONDS, seconds / 4))
