"""All metrics of a process: what is counted here, what others count, and the answer to a scrape."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from klines.background import running
from klines.metrics.family import Family, exposed
from klines.metrics.instruments import Instruments
from klines.metrics.shared import WRITE_SECONDS, Shared

RETRY_SECONDS = 1.0
LAG_SECONDS = 0.25
Source = Callable[[], Iterable[Family]]


class Metrics:
    """`directory` is where the processes of one service tell each other what they count; None: this is the only one."""

    def __init__(self, directory: Path | None = None) -> None:
        self.instruments = Instruments()
        self._sources: list[Source] = []
        self._shared = Shared(directory) if directory else None

    def watch(self, *sources: Source) -> None:
        """Ask these too, at every scrape."""
        self._sources += sources

    def text(self, *, openmetrics: bool = False) -> tuple[bytes, str]:
        """The answer to a scrape, of all processes, and its media type."""
        own = self._families()
        return exposed(self._shared.summed(own) if self._shared else own, openmetrics=openmetrics)

    def _families(self) -> list[Family]:
        return [*self.instruments.families(), *(family for source in self._sources for family in source())]

    async def share(self) -> None:
        """Tell the other processes, for ever."""
        while self._shared:
            self._shared.write(self._families())
            await asyncio.sleep(WRITE_SECONDS)
        await asyncio.Event().wait()

    async def measure_lag(self) -> None:
        """See how late timers of the event loop run, for ever."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + LAG_SECONDS
            await asyncio.sleep(LAG_SECONDS)
            self.instruments.loop_lag.observe(max(0.0, loop.time() - due))

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[None]:
        """While the context is open."""
        async with AsyncExitStack() as stack:
            for name, work in (("metrics", self.share), ("event loop's measure", self.measure_lag)):
                await stack.enter_async_context(running(name, work, RETRY_SECONDS))
            yield
        self._sources.clear()
