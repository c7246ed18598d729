"""Fills the sessions of an import from its file: every session gets the trades of its own tokens, cut into slices.

Of each session one slice is on its way while the next ones are read, so memory holds a few slices of each.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, TypeAlias

import asyncpg

from klines.importer.progress import Step
from klines.importer.reader import Batch
from klines.importer.slices import Shares, Slices

Connection: TypeAlias = "asyncpg.Connection[Any]"
OnProgress = Callable[[Step], None]


async def fill(
    connections: Sequence[Connection], batches: Iterator[Batch], slice_rows: int, on_progress: OnProgress
) -> list[bool]:
    """Copy all batches into the tables `incoming` of the sessions; for each, whether its slices are in order.

    No token is in two sessions. What reading or copying raises comes in an `ExceptionGroup`, the first failure first.
    """
    cutter = _Cutter(batches, slice_rows, len(connections))
    copying: dict[Connection, asyncio.Task[None]] = {}
    async with asyncio.TaskGroup() as group, aclosing(_texts(cutter, on_progress)) as texts:
        async for row in texts:
            for connection, text in zip(connections, row, strict=True):
                if text:
                    if connection in copying:
                        await copying[connection]
                    copying[connection] = group.create_task(_copied(connection, text))
    return [one.in_order for one in cutter.slices]


async def _copied(connection: Connection, text: bytes) -> None:
    # A file-like source would be read in further threads, and bytes would be taken for the name of a file.
    async def chunks() -> AsyncGenerator[bytes]:
        yield text

    await connection.copy_to_table("incoming", schema_name="pg_temp", source=chunks())


async def _texts(cutter: _Cutter, on_progress: OnProgress) -> AsyncGenerator[list[bytes]]:
    """For every session what is to be copied next, or nothing; further batches are read and checked in a thread."""
    rows = 0
    following = asyncio.create_task(asyncio.to_thread(cutter.next))
    try:
        # Shielded: a thread cannot be cancelled, and the file must not be closed under it.
        while (cut := await asyncio.shield(following)) is not None:
            following = asyncio.create_task(asyncio.to_thread(cutter.next))
            rows += cut.rows
            on_progress(Step("checking", rows, cut.share))
            yield cut.texts
        yield cutter.rest()
    finally:
        await asyncio.wait([following])
        following.exception()


class _Cut(NamedTuple):
    """The slices that one batch completed, as text for each session; its rows, and the share of the file by now."""

    texts: list[bytes]
    rows: int
    share: float


class _Cutter:
    """Divides batches among the sessions, and cuts what each gets into slices."""

    def __init__(self, batches: Iterator[Batch], slice_rows: int, sessions: int) -> None:
        self.slices = [Slices(slice_rows) for _ in range(sessions)]
        self._batches = batches
        self._shares = Shares(sessions)

    def next(self) -> _Cut | None:
        batch = next(self._batches, None)
        if batch is None:
            return None
        shares = self._shares.divided(batch.trades)
        texts = ["".join(one.take(share)).encode() for one, share in zip(self.slices, shares, strict=True)]
        return _Cut(texts, batch.rows, batch.share)

    def rest(self) -> list[bytes]:
        return ["".join(one.rest()).encode() for one in self.slices]
