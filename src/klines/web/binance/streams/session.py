"""One connection of a Binance client: the streams it holds, and its requests one after the other.

A SUBSCRIBE is all or nothing, its answer comes before the first event of its streams, and a stream that is held
already, in whatever spelling, is held once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Sequence
from typing import Any

from klines.errors import BadRequest, KlinesError, TooManyRequests, Unavailable
from klines.hub import RESTART
from klines.relay.messages import framed
from klines.web.admission.limits import Weigh
from klines.web.binance.streams import control
from klines.web.binance.streams.batch import Batch
from klines.web.binance.streams.control import INVALID_REQUEST, TOO_MANY_REQUESTS, TRY_AGAIN, Refused, Request
from klines.web.binance.streams.market import Claim, Market
from klines.web.binance.streams.names import Name, parse_name
from klines.web.transport.connection import Connection

MAX_STREAMS = 1024
# Without any stream that opens, and in all.
OPEN_SECONDS = 12.0
MAX_OPEN_SECONDS = 30.0
OPENED_AT_ONCE = 8


class Session:
    """`combined` wraps events with the name of their stream; `per_ms` units of time are in a millisecond."""

    def __init__(self, market: Market, connection: Connection, weigh: Weigh, *, combined: bool, per_ms: int) -> None:
        self._market = market
        self._weigh = weigh
        self._connection = connection
        self._combined = combined
        self._per_ms = per_ms
        self._held: dict[Name, tuple[str, Claim]] = {}
        self.subscriber = market.hub.subscribe(self)

    def give(self, batch: Batch, name: str, key: Hashable | None) -> None:
        """Send a batch of the stream that the client calls `name`."""
        self.subscriber.put(batch.frames(name if self._combined else None, self._per_ms), key)

    def end(self, reason: str) -> None:
        """One of its streams cannot be continued."""
        self._connection.close(RESTART, reason)

    def leave(self) -> None:
        """The connection is over."""
        self._market.hub.leave(self.subscriber)
        for name in list(self._held):
            self._drop(name)

    async def claim(self, texts: Sequence[str]) -> dict[Name, tuple[str, Claim]]:
        """Hold what is called so and not held yet; `join` makes it heard. Raises what stands against any of them."""
        wanted = {parse_name(text): text for text in reversed(texts)}
        missing = [name for name in reversed(wanted) if name not in self._held]
        if len(self._held) + len(missing) > MAX_STREAMS:
            raise BadRequest(f"at most {MAX_STREAMS} streams on a connection", code="streams_exhausted")
        self._weigh(len(missing))
        claims: dict[Name, tuple[str, Claim]] = {}
        queue = iter(missing)

        async def work() -> None:
            for name in queue:
                claims[name] = (wanted[name], await self._market.claim(name))
                if not limit.expired():
                    limit.reschedule(min(last, asyncio.get_running_loop().time() + OPEN_SECONDS))

        last = asyncio.get_running_loop().time() + MAX_OPEN_SECONDS
        try:
            async with asyncio.timeout(OPEN_SECONDS) as limit:
                await _all(work, min(OPENED_AT_ONCE, len(missing)))
        except BaseException as error:
            for _, claim in claims.values():
                self._market.release(claim)
            if isinstance(error, TimeoutError):
                raise Unavailable("the database is busy", code="database_busy") from None
            raise
        return {name: claims[name] for name in missing}

    def join(self, claims: dict[Name, tuple[str, Claim]]) -> None:
        """From now on these are heard, beginning with what they show now."""
        self._held |= claims
        self.subscriber.streams = len(self._held)
        for text, claim in claims.values():
            if claim.source is not None and claim.source.left:
                # Given up while the others were opened.
                self.end("a stream cannot be continued: connect again")
                return
            claim.watchers[self] = text
            if (present := claim.present()) is not None:
                self.give(present.batch, text, present.key)

    async def hear(self, text: str) -> None:
        """A message of the client: answer it."""
        try:
            request = control.read(text)
            await self._answer(request)
        except Refused as refused:
            self._say(control.error(refused.number, refused.detail, refused.id))

    async def _answer(self, request: Request) -> None:
        claims: dict[Name, tuple[str, Claim]] = {}
        try:
            if request.method == "SUBSCRIBE":
                claims = await self.claim(request.names)
            elif request.method == "UNSUBSCRIBE":
                for name in [parse_name(text) for text in request.names]:
                    self._drop(name)
        except KlinesError as error:
            raise Refused(_number(error), error.detail, request.id) from None
        self._say(control.result(self._result(request), request.id))
        self.join(claims)

    def _result(self, request: Request) -> Any:
        if request.method == "SET_PROPERTY":
            self._combined = request.value
        return {
            "LIST_SUBSCRIPTIONS": [text for text, _ in self._held.values()],
            "GET_PROPERTY": self._combined,
        }.get(request.method)

    def _drop(self, name: Name) -> None:
        if name in self._held:
            _, claim = self._held.pop(name)
            claim.watchers.pop(self, None)
            self._market.release(claim)
            self.subscriber.streams = len(self._held)

    def _say(self, answer: bytes) -> None:
        self.subscriber.put(framed(answer))


def _number(error: KlinesError) -> int:
    if isinstance(error, TooManyRequests):
        return TOO_MANY_REQUESTS
    return TRY_AGAIN if isinstance(error, Unavailable) else INVALID_REQUEST


async def _all(work: Any, count: int) -> None:
    """Run it so many times beside itself; the first error ends all and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(count):
                group.create_task(work())
    except* KlinesError as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None
