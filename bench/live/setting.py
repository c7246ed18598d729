"""What the benchmarks of the live streams run against: tokens, their writer, and services with clients."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from bench.live.clients import Clients
from bench.live.figures import Scale
from bench.live.writer import Writer
from bench.service import port_of, service_of
from klines import migrations, settings
from klines.writer import REGISTER, TOKEN_IDS

SYMBOLS = [f"BENCH{number:03}-SOL" for number in range(200)]
QUIET = "QUIET-SOL"
STREAMS = {"transactions": "/ws/transactions/{}", "klines 1s": "/ws/klines/{}/1s"}
# Clients of a token without trades that every service has from the start: whatever the first client costs is paid.
WARM = 10


@dataclass(frozen=True)
class Bench:
    """What the benchmarks share; `push_ms` is what the services are told unless a benchmark has its own."""

    url: str
    profile: str
    folder: Path
    writer: Writer
    postmaster: psutil.Process
    scale: Scale
    push_ms: int

    @contextmanager
    def serving(self, processes: int = 1, push_ms: int | None = None) -> Iterator[tuple[psutil.Process, Clients]]:
        """A fresh service in its own process, and processes for its clients; RuntimeError if one of them fails."""
        log = self.folder / "service.log"
        with service_of(log, self._environment(push_ms)) as process:
            clients = Clients(port_of(process, log), processes)
            try:
                clients.open([STREAMS["klines 1s"].format(QUIET)] * WARM)
                yield psutil.Process(process.pid), clients
            except (EOFError, TimeoutError, BrokenPipeError) as error:
                raise RuntimeError(f"clients failed; the service ({process.poll()}): {log.read_text()}") from error
            finally:
                clients.close()

    def _environment(self, push_ms: int | None) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if name not in settings.variables()}
        push = str(self.push_ms if push_ms is None else push_ms)
        return ours | {"DATABASE_URL": self.url, "PORT": "0", "KLINES_PUSH_INTERVAL": push}


@asynccontextmanager
async def prepared(folder: Path, url: str, profile: str, scale: Scale, push_ms: int) -> AsyncIterator[Bench]:
    """A migrated database with the tokens, and the writer."""
    choice = (await migrations.upgrade(url, profile)).profile
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(REGISTER, [*SYMBOLS, QUIET])
        ids = {row["symbol"]: row["token_id"] for row in await connection.fetch(TOKEN_IDS, SYMBOLS)}
        writer = Writer(connection, [ids[symbol] for symbol in SYMBOLS])
        backend = psutil.Process(connection.get_server_pid())
        told = choice.profile if choice else "none"
        yield Bench(url, told, folder, writer, backend.parent() or backend, scale, push_ms)
    finally:
        await connection.close()
