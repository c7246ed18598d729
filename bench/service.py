"""What the benchmarks run against: a PostgreSQL, a service in its own process per measurement, and clients for it.

Everything that a context here starts has ended when it is left, also by an error or an interrupt.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil

from bench.clients import Clients
from bench.figures import Scale
from bench.wire import DEADLINE
from bench.writer import Writer
from klines import migrations, settings
from klines.embedded import EmbeddedServer
from klines.writer import REGISTER, TOKEN_IDS

SYMBOLS = [f"BENCH{number:03}-SOL" for number in range(200)]
QUIET = "QUIET-SOL"
STREAMS = {"transactions": "/ws/transactions/{}", "klines 1s": "/ws/klines/{}/1s"}
# Clients of a token without trades that every service has from the start: whatever the first client costs is paid.
WARM = 10
LOOK_SECONDS = 0.05


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
        with _service(log, self._environment(push_ms)) as process:
            clients = Clients(_port(process, log), processes)
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


@contextmanager
def _service(log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "klines", "serve"]
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)  # noqa: S603 - fixed
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _port(process: subprocess.Popen[bytes], log: Path) -> int:
    deadline = time.monotonic() + DEADLINE
    while not (found := re.search(r"klines serves on \S+:(\d+)", log.read_text())):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the service did not start: {log.read_text()}")
        time.sleep(LOOK_SECONDS)
    return int(found[1])


@contextmanager
def postgres() -> Iterator[tuple[Path, str]]:
    """A temporary directory and the URL of an embedded PostgreSQL in it, durable as in production."""
    folder = Path(tempfile.mkdtemp(prefix="klines-bench-"))
    # The account of the embedded server must reach its data.
    folder.chmod(0o711)
    try:
        with EmbeddedServer(folder / "data") as server:
            yield folder, server.url
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
