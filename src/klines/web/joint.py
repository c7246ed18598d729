"""Answers that several requests wait for together.

Who asks what is being read already neither starts a second reading nor takes the answer of the first, which began
before: it waits for the next one, with everybody who asks the same meanwhile. So no answer misses what was committed
before it was asked for, and however many ask, each question is read once at a time. Only that the database does not
answer is the next one's answer too, or its asker would wait for that twice. A reading that nobody waits for any more
is cancelled, so there are never more of them than requests.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar

from klines.errors import Unavailable

T = TypeVar("T")


class _Reading:
    def __init__(self) -> None:
        self.task: asyncio.Task[Any]
        self.waiting = 0


class JointAnswers:
    """Answers by question."""

    def __init__(self) -> None:
        self._under_way: dict[Hashable, _Reading] = {}
        self._next: dict[Hashable, _Reading] = {}

    async def answer(self, question: Hashable, read: Callable[[], Awaitable[T]]) -> T:
        """What a `read` that begins from now on answers, or raises; `read` is that of the first who asked for it."""
        reading = self._next.get(question)
        if reading is None:
            reading = self._next[question] = _Reading()
            before = self._under_way.get(question)
            reading.task = asyncio.create_task(self._read(question, reading, before, read))
        reading.waiting += 1
        try:
            answer: T = await asyncio.shield(reading.task)
            return answer
        finally:
            reading.waiting -= 1
            if not reading.waiting:
                reading.task.cancel()
                if self._next.get(question) is reading:
                    del self._next[question]

    async def _read(
        self, question: Hashable, reading: _Reading, before: _Reading | None, read: Callable[[], Awaitable[T]]
    ) -> T:
        if before is not None:
            await asyncio.wait([before.task])
        del self._next[question]
        if before is not None and not before.task.cancelled():
            error = before.task.exception()
            if isinstance(error, Unavailable):
                raise error
        self._under_way[question] = reading
        try:
            return await read()
        finally:
            if self._under_way.get(question) is reading:
                del self._under_way[question]
