"""Work that goes on beside everything else while a context is open, and starts again when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from klines.errors import Unavailable

logger = logging.getLogger("klines.background")


@asynccontextmanager
async def running(name: str, work: Callable[[], Awaitable[None]], retry_seconds: float) -> AsyncIterator[None]:
    """While the context is open, run `work` again `retry_seconds` after it ends or fails; leaving cancels it."""
    task = asyncio.create_task(_forever(name, work, retry_seconds), name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _forever(name: str, work: Callable[[], Awaitable[None]], retry_seconds: float) -> None:
    while True:
        try:
            await work()
        except Unavailable as error:
            logger.warning("the %s waits: %s", name, error.detail)
        except Exception:
            logger.exception("the %s failed and starts again", name)
        await asyncio.sleep(retry_seconds)
