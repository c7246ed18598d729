"""Pages of bars that were answered before, ready to be sent again as long as they are what would be read now.

An answer is held with the version that its token had in the same statement (`klines.queries.versions`). It is sent
again only when a read of the version that began after the request says that nothing changed: so a request sees every
trade that was committed before it was sent, through whatever process. An answer also shows what time it is: which bars
are closed, and with filling how far they go. So it ends where a bar of its width does.

Bounds: `MAX_BYTES` of bodies and `MAX_ANSWERS` of them; the one that was asked for longest ago goes first.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cached_property
from hashlib import blake2b
from typing import NamedTuple

from klines.errors import Unavailable
from klines.gaps import Fill
from klines.interval import Width
from klines.patience import patience
from klines.queries.klines import Page
from klines.queries.versions import Version
from klines.web.joint import JointAnswers

MAX_BYTES = 64 * 1024 * 1024
MAX_ANSWERS = 8192
# Of a scan through a long history nothing is asked for twice: one page of it must not cost many of others.
MAX_BODY = 4 * 1024 * 1024
# Of a request's time the rest is for reading.
PROOF_SECONDS = 0.4


class Question(NamedTuple):
    """What a page is asked for by; times in epoch microseconds."""

    token_id: int
    width: Width
    limit: int
    from_us: int | None
    to_us: int | None
    fill: Fill


class Answer:
    """The body that answers a question, and when its last bar has ended, in epoch milliseconds (None: no bars)."""

    def __init__(self, question: Question, page: Page, body: bytes, now_ms: int) -> None:
        self.body = body
        self.version: Version = page.version
        width, last = question.width, page.last_open_ms
        self.end_ms = None if last is None else last + width.milliseconds
        opened = width.floor(now_ms)
        self._since_ms: float = opened
        self._until_ms: float = opened + width.milliseconds
        if question.fill == "none" and (self.end_ms is None or self.end_ms <= now_ms):
            # All of its bars have ended, unless the clock goes back.
            self._since_ms, self._until_ms = self.end_ms or -math.inf, math.inf

    def stands(self, now_ms: int) -> bool:
        """Whether it would read the same at that moment, as far as nothing was traded since."""
        return self._since_ms <= now_ms < self._until_ms

    @cached_property
    def etag(self) -> str:
        """What names the body in HTTP."""
        return f'"{blake2b(self.body, digest_size=12).hexdigest()}"'


class Answers:
    """Answers by question."""

    def __init__(self, joint: JointAnswers) -> None:
        self._joint = joint
        self._held: dict[Question, Answer] = {}
        self._bytes = self._forgotten = 0

    async def answer(
        self,
        question: Question,
        now_ms: int,
        version: Callable[[int], Awaitable[Version]],
        read: Callable[[], Awaitable[Answer]],
    ) -> Answer:
        """The answer as of now: one that is held, or what `read` reads for all who ask the same meanwhile.

        `version` tells that of a token, as `klines.web.versions` does, and raises `Unavailable` where it cannot.
        """
        held = self._held.get(question)
        if held is not None and held.stands(now_ms):
            # Without a version it is read, and that says what is wrong.
            with suppress(Unavailable, TimeoutError):
                async with patience(PROOF_SECONDS):
                    told = await version(question.token_id)
                if told == held.version and self._held.get(question) is held:
                    self._held[question] = self._held.pop(question)
                    return held
        forgotten = self._forgotten
        found = await self._joint.answer(question, read)
        if forgotten == self._forgotten:
            self._hold(question, found)
        return found

    def forget(self) -> None:
        """Hold nothing: the database may be another one, where versions mean other things."""
        self._held.clear()
        self._bytes = 0
        # What is being read now is not held either.
        self._forgotten += 1

    def _hold(self, question: Question, answer: Answer) -> None:
        if self._held.get(question) is answer or len(answer.body) > MAX_BODY:
            return
        self._drop(question)
        self._held[question] = answer
        self._bytes += len(answer.body)
        while self._bytes > MAX_BYTES or len(self._held) > MAX_ANSWERS:
            self._drop(next(iter(self._held)))

    def _drop(self, question: Question) -> None:
        if (dropped := self._held.pop(question, None)) is not None:
            self._bytes -= len(dropped.body)
