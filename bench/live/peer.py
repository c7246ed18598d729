"""The yardsticks of the fan-out: servers in `bench/peers` that send given frames when they are told to."""

from __future__ import annotations

import asyncio
import sys
from asyncio import StreamReader, StreamWriter
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import psutil

from bench.service import DEADLINE

PEERS = Path(__file__).parents[1] / "peers"
COMMANDS: Mapping[str, Sequence[str]] = {
    "node ws": ("node", str(PEERS / "ws_server.mjs")),
    "Litestar channels": (sys.executable, str(PEERS / "litestar_channels.py")),
}


class Peer:
    """One of them at work; `port` is where it takes clients."""

    def __init__(self, process: Process, port: int) -> None:
        self.port, self._process = port, process
        self.process = psutil.Process(process.pid)

    async def obey(self, command: str) -> int:
        """Have it send; returns how many updates it sent. RuntimeError when it fails."""
        cast(StreamWriter, self._process.stdin).write(f"{command}\n".encode())
        return await _answer(self._process, "done")


@asynccontextmanager
async def peer(name: str, frames: Path) -> AsyncIterator[Peer]:
    """A peer by its name in `COMMANDS`, with the frames in the lines of a file."""
    process = await asyncio.create_subprocess_exec(*COMMANDS[name], str(frames), stdin=PIPE, stdout=PIPE)
    try:
        yield Peer(process, await _answer(process, "port"))
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _answer(process: Process, what: str) -> int:
    async with asyncio.timeout(DEADLINE):
        word, _, number = (await cast(StreamReader, process.stdout).readline()).decode().partition(" ")
    if word != what:
        raise RuntimeError(f"the peer said {word!r}, not {what!r}")
    return int(number)
