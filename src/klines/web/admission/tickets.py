"""`POST /api/v1/tickets`: what a browser, which can put no header on a WebSocket, shows in its address for a key.

A ticket opens one socket within `TICKET_SECONDS`, in whatever process of the service, and stands for the key it was
given to: what that key may not do, and when it ends, holds for the socket too. Only its SHA-256 is stored. The process
that gave it out remembers so, and takes whoever brings it for no guesser.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from litestar import Response, post
from litestar.datastructures import State
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from klines.credential import digest, new_ticket, ticket_of
from klines.database import reading
from klines.errors import TooManyRequests, Unauthorized
from klines.queries import keys
from klines.web.services import Incoming

TICKET_SECONDS = 30
MAX_TICKETS = 1000
MAX_REMEMBERED = 10_000


class Ticket(msgspec.Struct):
    """To be shown once, as `?ticket=` of any WebSocket address, within `expires_in` seconds."""

    ticket: str
    expires_in: int


class Tickets:
    """The tickets of all processes, in the database."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # The digests of those given out here, oldest first, and until when they are good by the monotonic clock.
        self._given: dict[bytes, float] = {}

    def knows(self, text: str) -> bool:
        """Whether this process gave the ticket out a short while ago; raises `Unauthorized` for what is no ticket."""
        return self._given.get(digest(ticket_of(text)), 0.0) > time.monotonic()

    async def issue(self, key_id: str | None) -> str:
        """A new ticket for this key; raises `TooManyRequests` when it has `MAX_TICKETS` unused ones, `Unavailable`."""
        ticket = new_ticket()
        async with self._committed() as connection:
            if not await keys.issue(connection, digest(ticket), key_id, TICKET_SECONDS, MAX_TICKETS):
                detail = f"{MAX_TICKETS} tickets of this key wait to be used"
                raise TooManyRequests(detail, code="tickets_exhausted", retry_after=TICKET_SECONDS)
        self._given[digest(ticket)] = time.monotonic() + TICKET_SECONDS
        if len(self._given) > MAX_REMEMBERED:
            del self._given[next(iter(self._given))]
        return ticket

    async def redeem(self, text: str) -> str | None:
        """The id of the key that a ticket stands for, None if it has none; raises `Unauthorized`, `Unavailable`."""
        ticket = digest(ticket_of(text))
        # Whoever brings it again is a guesser.
        self._given.pop(ticket, None)
        async with self._committed() as connection:
            found = await keys.redeem(connection, ticket)
        if found is None:
            detail = f"the ticket is unknown, used, or older than {TICKET_SECONDS} s"
            raise Unauthorized(detail, code="ticket_invalid")
        return found[0]

    @asynccontextmanager
    async def _committed(self) -> AsyncIterator[AsyncConnection]:
        async with reading(self._engine) as connection:
            yield connection
            await connection.commit()


@post("/api/v1/tickets", summary="A ticket for one WebSocket")
async def post_ticket(request: Incoming, state: State) -> Response[Ticket]:
    """For browsers: `?ticket=` opens one WebSocket of the caller's key within 30 seconds. Takes no body."""
    tickets: Tickets = state.access.tickets
    ticket = await tickets.issue(request.scope["klines.grant"].key_id)  # type: ignore[typeddict-item]
    return Response(Ticket(ticket, TICKET_SECONDS), headers={"Cache-Control": "no-store"})
