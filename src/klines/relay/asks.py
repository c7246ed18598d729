"""Streams that were asked for and wait for the relay; those that ask for the same wait together."""

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

    def __len__(self) -> int:
        return len(self._waiting)

    async def answered(self, ask: Ask, hub: Hub) -> Opening:
        """The answer; raises `Unavailable` when it takes too long, and what `refuse` is given."""
        answer: asyncio.Future[Opening] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(ask, []).append(answer)
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

    def next(self) -> Ask | None:
        """The next one to answer; those that nobody waits for any more are forgotten."""
        for ask, answers in list(self._waiting.items()):
            if not all(answer.done() for answer in answers):
                return ask
            del self._waiting[ask]
        return None

    def take(self, ask: Ask) -> Iterable[asyncio.Future[Opening]]:
        """Those who wait for this one: to be answered now."""
        return [answer for answer in self._waiting.pop(ask, ()) if not answer.done()]

    def ask_anew(self, ask: Ask) -> None:
        """The cursor of this one leads nowhere: its stream begins anew, or has to be left if it has begun."""
        if ask.begun:
            self.refuse(Unavailable("the stream cannot be continued", code="stream_lost"), ask)
        else:
            self._waiting.setdefault(ask.anew(), []).extend(self._waiting.pop(ask, ()))

    def postpone(self, ask: Ask) -> None:
        """It cannot be answered yet: let the others go first."""
        if ask in self._waiting:
            self._waiting[ask] = self._waiting.pop(ask)

    def refuse(self, error: KlinesError, *asks: Ask) -> None:
        """Answer these with an error, or all of them."""
        for ask in asks or list(self._waiting):
            for answer in self.take(ask):
                answer.set_exception(error)
