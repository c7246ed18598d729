"""The time that an answer may take: a request that is over it gets 503, and a reader who hung up is not read for.

What is under way is cancelled, down to the statement in PostgreSQL. A writer who hung up is served to the end: what it
sent is here, and to send it again would cost more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from litestar.types import ASGIApp, Receive, Send

from klines.errors import Unavailable
from klines.web.admission.methods import SAFE
from klines.web.refusals import refuse_in_kind

READ_SECONDS = 30.0
WRITE_SECONDS = 60.0
# Most answers are there by then, and nobody needs to listen for the client.
LISTEN_SECONDS = 0.1


def in_time(app: ASGIApp) -> ASGIApp:
    """Wrap an application: its HTTP requests end in time."""

    async def timed(scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        reads = scope["method"] in SAFE
        answer = _Answer(send)
        try:
            async with asyncio.timeout(READ_SECONDS if reads else WRITE_SECONDS) as deadline:
                if reads:
                    await _attended(app, scope, receive, answer, deadline)
                else:
                    await app(scope, receive, answer.send)
        except TimeoutError:
            # One that has begun is cut short by the server, so that nobody takes it for a whole one.
            if not answer.started and not answer.unwanted:
                late = Unavailable("the answer took too long", code="deadline_exceeded")
                await refuse_in_kind(late, scope, send)

    return timed


class _Answer:
    """What was sent so far, and whether the client has gone before it was complete."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False
        self.complete = False
        self.unwanted = False

    async def send(self, message: Any) -> None:
        """ASGI's `send`."""
        self.started = True
        self.complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)


async def _attended(app: ASGIApp, scope: Any, receive: Receive, answer: _Answer, deadline: asyncio.Timeout) -> None:
    """Run a read, and listen meanwhile for its client hanging up."""
    inbox: asyncio.Queue[Any] = asyncio.Queue(1)
    listener: asyncio.Task[None] | None = None

    async def listen() -> None:
        while (message := await receive())["type"] != "http.disconnect":
            await inbox.put(message)
        if not answer.complete:
            answer.unwanted = True
            deadline.reschedule(0)

    def begin() -> None:
        nonlocal listener
        listener = asyncio.create_task(listen(), name="client")

    async def received() -> Any:
        return await (inbox.get() if listener else receive())

    timer = asyncio.get_running_loop().call_later(LISTEN_SECONDS, begin)
    try:
        await app(scope, received, answer.send)
    finally:
        timer.cancel()
        if listener is not None:
            listener.cancel()
            with suppress(asyncio.CancelledError):
                await listener
