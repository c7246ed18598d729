"""Those that a window of bars is asked of: our service, the ORM application, and the embedded engines.

Each answers a list of windows in two ways: `check` gives the rows, `ask` the seconds that each took. Processes of ours
end with their context.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import psutil

from bench.load import cpu_seconds
from bench.peers.engines import LIMIT, Window
from bench.peers.orm import address
from bench.stage import Service
from bench.trades import symbols

ANSWER_SECONDS = 600
# A line of an answer with the rows of some windows.
LINE_BYTES = 2**26
SYMBOLS = symbols(10_000)


class Row(NamedTuple):
    """A bar: open time in epoch seconds; open, high, low, close and volume; trades."""

    time: int
    values: tuple[Decimal, ...]
    trades: int


class Peer(Protocol):
    """Whoever makes bars."""

    def cpu(self) -> dict[str, float]:
        """The CPU seconds so far of all that work for it, by name."""

    async def check(self, windows: Sequence[Window]) -> list[list[Row]]:
        """The rows of each window."""

    async def ask(self, windows: Sequence[Window]) -> list[float]:
        """The seconds that each window took."""


class Embedded:
    """A process of `bench.peers.engines`."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, what: str, **arguments: Any) -> Any:
        """One line there and one back."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("an engine without pipes")
        self._process.stdin.write(json.dumps({"do": what, **arguments}).encode() + b"\n")
        line = await asyncio.wait_for(self._process.stdout.readline(), ANSWER_SECONDS)
        if not line:
            raise RuntimeError(f"the engine ended: {what}")
        return json.loads(line)

    def cpu(self) -> dict[str, float]:
        """Its CPU seconds so far."""
        return {"engine": cpu_seconds(psutil.Process(self._process.pid))}

    def variant(self, name: str) -> Variant:
        """A way of asking it."""
        return Variant(self, name)


class Variant(NamedTuple):
    """An engine, asked in one way."""

    engine: Embedded
    name: str

    def cpu(self) -> dict[str, float]:
        return self.engine.cpu()

    async def check(self, windows: Sequence[Window]) -> list[list[Row]]:
        found = await self.engine.do("check", variant=self.name, windows=windows)
        return [[Row(int(row[0]), tuple(map(Decimal, row[1:6])), int(row[6])) for row in rows] for rows in found]

    async def ask(self, windows: Sequence[Window]) -> list[float]:
        seconds: list[float] = await self.engine.do("ask", variant=self.name, windows=windows)
        return seconds


class Http:
    """Over one connection, one request after the other, until the body is there; it is not parsed in that time."""

    def __init__(self, service: Service, postmaster: psutil.Process) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=ANSWER_SECONDS)
        self._service, self._postmaster = service.process, postmaster

    def cpu(self) -> dict[str, float]:
        return {
            "service": cpu_seconds(self._service),
            "postgres": cpu_seconds(self._postmaster),
            "client": time.process_time(),
        }

    async def check(self, windows: Sequence[Window]) -> list[list[Row]]:
        self._connect()
        return [self.rows(self._get(self.path(one))) for one in windows]

    async def ask(self, windows: Sequence[Window]) -> list[float]:
        paths, seconds = [self.path(one) for one in windows], []
        self._connect()
        for path in paths:
            begin = time.perf_counter()
            self._get(path)
            seconds.append(time.perf_counter() - begin)
        return seconds

    def path(self, window: Window) -> str:
        """Where the window is."""
        raise NotImplementedError

    def rows(self, body: bytes) -> list[Row]:
        """The bars of a body."""
        raise NotImplementedError

    def _connect(self) -> None:
        # While others were asked, the server may have closed what was idle.
        self._connection.close()
        self._connection.connect()

    def _get(self, path: str) -> bytes:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            raise RuntimeError(f"{path}: {answer.status} {body[:500]!r}")
        return body


class Ours(Http):
    """The service."""

    def path(self, window: Window) -> str:
        since = "" if window.since is None else f"&from={window.since * 1000}"
        return f"/api/v1/klines/{SYMBOLS[window.token - 1]}?interval=1m&limit={LIMIT}{since}&to={window.until * 1000}"

    def rows(self, body: bytes) -> list[Row]:
        return [Row(one["open_time"] // 1000, _values(one), one["trades"]) for one in json.loads(body)["klines"]]


class Orm(Http):
    """`bench.peers.orm`; it knows windows with a beginning only."""

    def path(self, window: Window) -> str:
        start, end = (quote(_moment(at or 0).isoformat()) for at in (window.since, window.until))
        return f"/klines/{SYMBOLS[window.token - 1]}?start={start}&end={end}&limit={LIMIT}"

    def rows(self, body: bytes) -> list[Row]:
        return [
            Row(int(datetime.fromisoformat(one["open_time"]).timestamp()), _values(one), one["trades"])
            for one in json.loads(body)
        ]


def _values(bar: dict[str, str]) -> tuple[Decimal, ...]:
    return tuple(Decimal(bar[name]) for name in ("open", "high", "low", "close", "volume"))


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


@asynccontextmanager
async def engine(name: str, folder: Path) -> AsyncIterator[Embedded]:
    """An engine in a process of its own, with its data in the folder."""
    command = [sys.executable, "-m", "bench.peers.engines", name, str(folder)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=LINE_BYTES)
    try:
        yield Embedded(process)
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def application(url: str) -> AsyncIterator[Service]:
    """The ORM application on a database, served by uvicorn with one process."""
    port = _free_port()
    command = [sys.executable, "-m", "uvicorn", "bench.peers.orm:app", "--port", str(port), "--log-level", "warning"]
    environment = os.environ | {"ORM_URL": address(url)}
    process = await asyncio.create_subprocess_exec(*command, "--no-access-log", env=environment)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            while not await _listens(port):
                if process.returncode is not None:
                    raise RuntimeError("the ORM application did not start")
                await asyncio.sleep(0.05)
        yield Service(psutil.Process(process.pid), port)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
