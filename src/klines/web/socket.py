"""`/ws/klines/{token_symbol}/{interval}` and `/ws/transactions/{token_symbol}`: live streams; the rest is Binance's.

A stream begins before the upgrade, so that whatever stands against it is an HTTP answer with a problem as its body.
After the upgrade the hub writes to the connection, which outlives its request: nobody waits for its end.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from urllib.parse import unquote

from litestar import asgi
from litestar.types import Receive, Send
from uvicorn.protocols.utils import ClientDisconnected

from klines.cursor import Stream, parse_cursor
from klines.errors import BadRequest, KlinesError, NotFound, TooManyRequests, Unavailable, UpgradeRequired, echo
from klines.hub import RESTART, TOO_SLOW, Subscriber
from klines.interval import Width, parse_live_interval
from klines.relay.opening import Ask, Opening
from klines.web.admission.access import Access
from klines.web.admission.limits import READS, Weigh, page_weight, spend_reads, who
from klines.web.binance.streams import address as streams
from klines.web.klines import refuse_costly
from klines.web.parameters import integer, read, words
from klines.web.problem import RETRY_SECONDS, refuse, told
from klines.web.services import Services
from klines.web.transport.connection import EXTENSION, Connection

MAX_HISTORY = 1000
MAX_CURSOR = 128
CATCH_UP_SECONDS = 10.0
Leave = Callable[[], None]
# What is to be done at the end of a connection that goes on; None: it has ended.
Serve = Callable[[Connection, Receive, Send], Awaitable[Leave | None]]
ACCEPT: Any = {"type": "websocket.accept"}

_NATIVE = (["ws", "klines"], ["ws", "transactions"])

RULES = {
    name: (
        integer("history", f"{what} in the snapshot", default=default, low=0, high=MAX_HISTORY),
        words("cursor", "continue right after the message that had it", max_length=MAX_CURSOR),
    )
    for name, what, default in (("klines", "bars", 1), ("transactions", "trades", 0))
}


@asgi(["/ws", "/stream"], is_mount=True, copy_scope=False)
async def sockets(scope: Any, receive: Receive, send: Send) -> None:
    """Every address at and below these."""
    places: Places = scope["litestar_app"].state.places
    upgrade = str(scope["type"]) == "websocket"
    try:
        serve = _route(scope)
        if not upgrade:
            raise UpgradeRequired("this address speaks WebSocket", code="upgrade_required")
        connection: Connection = scope["extensions"][EXTENSION]["connection"]
        access: Access = scope["litestar_app"].state.access
        with ExitStack() as held:
            held.enter_context(access.holding(scope["klines.grant"], connection))
            held.enter_context(places.taken(who(scope)))
            if leave := await serve(connection, receive, send):
                held.callback(leave)
                connection.outlive(held.pop_all().close)
    except KlinesError as error:
        problem, headers = told(error)
        await refuse(problem, headers, send, upgrade=upgrade)


class Places:
    """How many sockets this process still takes, and of them each client; `each` 0: as many as there are."""

    def __init__(self, limit: int, each: int) -> None:
        self._limit, self._each = limit, each
        self._taken: Counter[str] = Counter()
        self._total = 0

    @contextmanager
    def taken(self, client: str) -> Iterator[None]:
        """A place for one socket of a client; raises `Unavailable` or `TooManyRequests` when there is none."""
        if self._total >= self._limit:
            raise Unavailable(f"all {self._limit} connections are taken", code="connections_exhausted")
        if self._each and self._taken[client] >= self._each:
            detail = f"at most {self._each} connections each; one must end first"
            raise TooManyRequests(detail, code="client_connections_exhausted", retry_after=RETRY_SECONDS)
        self._total += 1
        self._taken[client] += 1
        try:
            yield
        finally:
            self._total -= 1
            self._taken[client] -= 1
            if not self._taken[client]:
                del self._taken[client]


async def _serve(
    asked: list[str], query: bytes, services: Services, weigh: Weigh,
    connection: Connection, receive: Receive, send: Send,
) -> Leave | None:  # fmt: skip
    await receive()
    ask = await _asked(asked, query, services, weigh)
    subscriber = await _begun(connection, ask, send, services)
    return None if subscriber is None else partial(services.hub.leave, subscriber)


async def _begun(connection: Connection, ask: Ask, send: Send, services: Services) -> Subscriber | None:
    """Upgrade and bring the client to where the stream is; None if the connection had to be closed on the way."""
    opening = await services.relay.open(ask)
    try:
        await send(ACCEPT)
        while opening.subscriber is None:
            await _sent(connection, opening)
            opening = await services.relay.open(ask._replace(cursor=opening.cursor, begun=True))
    except (Unavailable, TimeoutError) as error:
        connection.close(TOO_SLOW if isinstance(error, TimeoutError) else RESTART, "reconnect with the cursor")
        return None
    except BaseException:
        if opening.subscriber is not None:
            services.hub.leave(opening.subscriber)
        raise
    connection.feeder = opening.subscriber
    opening.subscriber.attach(connection, opening.frames)
    return opening.subscriber


async def _sent(connection: Connection, opening: Opening) -> None:
    """Send a page of what a cursor is behind, and wait until the client has taken most of it."""
    for frame in opening.frames:
        connection.write(frame)
    async with asyncio.timeout(CATCH_UP_SECONDS):
        await connection.writable.wait()
    if connection.disconnected:
        raise ClientDisconnected


def _route(scope: Any) -> Serve:
    # The framework cuts the beginning off `path`; a token may hold what is quoted in `raw_path`.
    path = scope["raw_path"].decode("ascii")
    state = scope["litestar_app"].state
    _, *parts = (unquote(part) for part in path.split("/"))
    weigh = partial(spend_reads, scope.get(READS))
    if parts[:2] not in _NATIVE:
        address = streams.parse(parts, scope["query_string"])
        return partial(streams.serve, address, state.binance_streams, weigh)
    if (parts[1], len(parts)) in {("klines", 4), ("transactions", 3)}:
        return partial(_serve, parts[1:], scope["query_string"], state.services, weigh)
    raise NotFound(f"no stream at {echo(path)}", code="route_unknown")


async def _asked(asked: list[str], query: bytes, services: Services, weigh: Weigh) -> Ask:
    """What an address and its query ask for; raises what stands against it."""
    kind, *rest = asked
    history, cursor = read(query, RULES[kind]).values()
    seconds = _seconds(rest[1], history) if kind == "klines" else 0
    # The page that REST gives; the upgrade was the first 1 of it.
    weigh(page_weight(history, Width(seconds).parts if seconds else 1) - 1)
    symbol, token_id = await services.find(rest[0])
    stream = Stream(token_id, seconds)
    return Ask(stream, symbol, history, parse_cursor(cursor, stream) if cursor else None)


def _seconds(interval: str, history: int) -> int:
    try:
        width = parse_live_interval(interval)
    except BadRequest as error:
        raise NotFound(error.detail, code="interval_unknown") from None
    refuse_costly(history, width, "history")
    return width.seconds
