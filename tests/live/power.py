"""A PostgreSQL that a test can switch off and on, in an orderly way or not."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from types import MappingProxyType

from klines import migrations
from klines.embedded import EmbeddedServer
from tests.servers import Database, reachable_directory


class Power:
    """An embedded server of the test's own, which can be switched off and on; `options` are PostgreSQL settings."""

    def __init__(self, directory: Path, options: Mapping[str, str] = MappingProxyType({})) -> None:
        self._directory = directory
        self._options = options
        self._on = ExitStack()

    async def on(self) -> str:
        """Start; the URL."""
        server = EmbeddedServer(self._directory, options=self._options)
        await asyncio.to_thread(self._on.enter_context, server)
        return server.url

    async def off(self) -> None:
        """Stop as an administrator does."""
        await asyncio.to_thread(self._on.close)

    async def crash(self) -> None:
        """Stop as a fault does."""
        os.kill(self.postmaster, signal.SIGKILL)
        await self.off()

    async def immediate(self) -> None:
        """Stop as `pg_ctl stop -m immediate` does: nobody is waited for, and nothing is written any more."""
        os.kill(self.postmaster, signal.SIGQUIT)
        await self.off()

    @property
    def postmaster(self) -> int:
        """Its process."""
        return int((self._directory / "postgres" / "postmaster.pid").read_text().split()[0])


@asynccontextmanager
async def powered(profile: str = "plain", **options: str) -> AsyncIterator[tuple[Power, Database]]:
    """Such a server with these settings of PostgreSQL, switched on, and its migrated database."""
    with reachable_directory() as directory:
        power = Power(directory, options)
        try:
            url = await power.on()
            await migrations.upgrade(url, profile)
            yield power, Database(url, profile)
        finally:
            await power.off()
