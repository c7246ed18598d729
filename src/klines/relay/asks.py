"""Streams that were asked for and wait to be opened; those that ask for the same wait together."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from klines.errors import KlinesError, Unavailable
from klines.hub import Hub
from klines.relay.opening import Ask, Opening

WAIT_SECONDS = 5.0


class Asks:
    """Answers that are waited for, by what was asked, the longest waiting first."""

    def __init__(self) -> None:
        self._waiting: dict[Ask, list[asyncio.Future[Opening]]] = {}
        self._begun: set[Ask] = set()
        self._came = asyncio.Event()

    async def answered(self, ask: Ask, hub: Hub) -> Opening:
        """The answer; raises `Unavailable` when it takes too long, and what `refuse` is given."""
        answer: asyncio.Future[Opening] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ask, []).append(answer)
        self._came.set()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                return await answer
        except BaseException as error:
            # Whoever gives up just when the answer comes must not stay in the hub.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                subscriber = answer.result().subscriber
                if subscriber is not None:
                    hub.leave(subscriber)
            if isinstance(error, TimeoutError):
                raise Unavailable("the database is busy", code="database_busy") from None
            raise

    async def next(self, *, dear: bool = False) -> Ask:
        """Wait for the next one of this kind that nobody works on; the caller answers, postpones or refuses it."""
        while True:
            for ask, answers in list(self._waiting.items()):
                if ask in self._begun or ask.dear is not dear:
                    continue
                if not all(answer.done() for answer in answers):
                    self._begun.add(ask)
                    return ask
                del self._waiting[ask]
            self._came.clear()
            await self._came.wait()

    def take(self, ask: Ask) -> Iterable[asyncio.Future[Opening]]:
        """Those who wait for this one: to be answered now."""
        self._begun.discard(ask)
        return [answer for answer in self._waiting.pop(ask, ()) if not answer.done()]

    def ask_anew(self, ask: Ask) -> None:
        """The cursor of this one leads nowhere: its stream begins anew, or has to be left if it has begun."""
        if ask.begun:
            self.refuse(Unavailable("the stream cannot be continued", code="stream_lost"), ask)
        else:
            self._waiting.setdefault(ask.anew(), []).extend(self.take(ask))
            self._came.set()

    def postpone(self, ask: Ask) -> None:
        """It cannot be answered yet: let the others go first."""
        if answers := self.take(ask):
            self._waiting.setdefault(ask, []).extend(answers)
            self._came.set()

    def refuse(self, error: KlinesError, *asks: Ask) -> None:
        """Answer these with an error, or all of them."""
        for ask in asks or list(self._waiting):
            for answer in self.take(ask):
                answer.set_exception(error)
