"""Where Binance clients connect: `/ws`, `/ws/<stream>[/<stream>…]`, `/ws/<anything>`, `/stream?streams=<stream>/…`.

A beginning with streams is refused before the upgrade if one of them is, with a problem as the body.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from klines.errors import NotFound, echo
from klines.web.admission.limits import Weigh
from klines.web.binance.streams.batch import MICROSECONDS, MILLISECONDS
from klines.web.binance.streams.market import Market
from klines.web.binance.streams.session import Session
from klines.web.parameters import choice, read, words
from klines.web.transport.connection import Connection

MAX_NAMES = 8 * 1024
# As Binance has it: so many messages a second, and some more at the beginning or after a rest.
MESSAGES_PER_SECOND = 5
BURST = 15
POLICY = 1008

_UNITS = {"millisecond": MILLISECONDS, "microsecond": MICROSECONDS}
_UNIT = choice("timeUnit", "unit of the times", [*_UNITS, *map(str.upper, _UNITS)], "millisecond")
_RAW = (_UNIT,)
_COMBINED = (words("streams", "names of streams, joined by /", max_length=MAX_NAMES), _UNIT)


class Address(NamedTuple):
    """What an address asks for: streams to begin with, and the shape of events."""

    names: Sequence[str]
    combined: bool
    per_ms: int


def parse(path: Sequence[str], query: bytes) -> Address:
    """The address with these segments, decoded, and query; raises `NotFound` where there is none, `BadRequest`."""
    first, rest = path[0], [segment for segment in path[1:] if segment]
    combined = first == "stream"
    if combined and not rest:
        given = read(query, _COMBINED)
        names = [name for name in given["streams"].split("/") if name]
    elif not combined and (len(rest) <= 1 or all("@" in segment for segment in rest)):
        given = read(query, _RAW)
        names = [segment for segment in rest if "@" in segment]
    else:
        raise NotFound(f"no stream at {echo('/' + '/'.join(path))}", code="route_unknown")
    return Address(names, combined, _UNITS[given["timeUnit"].lower()])


async def serve(
    address: Address, market: Market, weigh: Weigh, connection: Connection, receive: Any, send: Any
) -> None:
    """Upgrade, and serve the connection to its end; raises what stands against the upgrade. Each stream weighs 1."""
    session = Session(market, connection, weigh, combined=address.combined, per_ms=address.per_ms)
    try:
        session.join(await _begun(session, address, connection, send))
        allowance = Allowance(connection.loop.time())
        while (event := await receive())["type"] != "websocket.disconnect":
            if event["type"] != "websocket.receive":
                continue
            if not allowance.takes(connection.loop.time()):
                connection.close(POLICY, f"too many requests: at most {MESSAGES_PER_SECOND} messages a second")
                return
            await session.hear(event["text"])
    finally:
        session.leave()


async def _begun(session: Session, address: Address, connection: Connection, send: Any) -> Any:
    claims = await session.claim(address.names)
    try:
        connection.hears()
        await send({"type": "websocket.accept"})
    except BaseException:
        session.join(claims)  # so that it lets go of them
        raise
    connection.feeder = session.subscriber
    session.subscriber.attach(connection)
    return claims


class Allowance:
    """How many messages a client may still send: a bucket that fills steadily."""

    def __init__(self, now: float) -> None:
        self._left, self._at = float(BURST), now

    def takes(self, now: float) -> bool:
        """One more message came at this time, in seconds; whether it is one too many."""
        self._left = min(BURST, self._left + (now - self._at) * MESSAGES_PER_SECOND)
        self._at = now
        self._left -= 1
        return self._left >= 0
