"""The room for trades on their way in: bodies that arrive, are parsed, or wait for a connection of a writer.

It is bounded in bytes and in batches, for a process; beyond, a request is refused at once, before its body is read.
What a client announces takes no room, only what it has sent: nobody can hold the room with a promise. Large bodies are
parsed in one thread beside the event loop, one after the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from klines.errors import Unavailable

MAX_BYTES = 64 * 1024 * 1024
MAX_BATCHES = 256
# Parsed in the event loop up to here: some two thousand trades, in ten milliseconds.
LARGE_BYTES = 256 * 1024
T = TypeVar("T")


class Intake:
    """`bytes` and `batches` are what it holds now, `refused` how many it has sent away."""

    def __init__(self, max_bytes: int = MAX_BYTES, max_batches: int = MAX_BATCHES) -> None:
        self.bytes = 0
        self.batches = 0
        self.refused = 0
        self._max_bytes = max_bytes
        self._max_batches = max_batches
        self._parser = ThreadPoolExecutor(1, "parser")

    @contextmanager
    def room(self, announced: int = 0) -> Iterator[Room]:
        """Room for one body, of `announced` bytes if that is known; raises `Unavailable` if there is none now."""
        if self.bytes + announced > self._max_bytes or self.batches >= self._max_batches:
            raise self._full()
        room = Room(self)
        try:
            yield room
        finally:
            self.bytes -= room.bytes
            self.batches -= room.complete

    async def parsed(self, parse: Callable[[], T], size: int) -> T:
        """The result of parsing a body of so many bytes, in the thread if it is a large one."""
        if size <= LARGE_BYTES:
            return parse()
        return await asyncio.get_running_loop().run_in_executor(self._parser, parse)

    def close(self) -> None:
        """End the thread, after what it is at."""
        self._parser.shutdown(wait=False, cancel_futures=True)

    def _take(self, size: int) -> None:
        if self.bytes + size > self._max_bytes:
            raise self._full()
        self.bytes += size

    def _count(self) -> None:
        if self.batches >= self._max_batches:
            raise self._full()
        self.batches += 1

    def _full(self) -> Unavailable:
        self.refused += 1
        return Unavailable("too many trades are on their way in; send this batch again", code="ingest_full")


class Room:
    """What one body takes of an intake; given back when its context ends."""

    def __init__(self, intake: Intake) -> None:
        self.bytes = 0
        self.complete = False
        self._intake = intake

    def take(self, size: int) -> None:
        """So many bytes more have come; raises `Unavailable`."""
        self._intake._take(size)
        self.bytes += size

    def fill(self) -> None:
        """The body is complete, and becomes a batch that is worked on; raises `Unavailable`."""
        self._intake._count()
        self.complete = True
