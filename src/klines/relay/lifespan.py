"""A relay at work while a context is open: its reader, its listener, its openers and its pulse."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

from klines.background import running
from klines.dear import DEAR_READS
from klines.hub import Hub
from klines.relay.engines import Engines
from klines.relay.relay import Pace, Relay

OPENERS = 4
READY_SECONDS = 3.0
RETRY_SECONDS = 1.0


@asynccontextmanager
async def open_relay(
    url: str, engines: Engines, hub: Hub, pace: Pace, forget: Callable[[], None]
) -> AsyncIterator[Relay]:
    """The relay between the database at `url`, read through `engines`, and the hub.

    `forget` is called when the database turns out to be another one than before: what was known of it may be wrong.
    """
    relay = Relay(engines, hub, pace, forget)
    async with AsyncExitStack() as stack:
        for name, work, count in (
            ("reader", relay.read, 1),
            ("listener", partial(relay.hear, url), 1),
            ("opener", partial(relay.answer, dear=False), OPENERS),
            ("opener of long histories", partial(relay.answer, dear=True), DEAR_READS),
            ("pulse", relay.pulse.beat, 1),
        ):
            for _ in range(count):
                await stack.enter_async_context(running(f"{name} of the streams", work, RETRY_SECONDS))
        with suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                await relay.pulse.ready.wait()
        yield relay
