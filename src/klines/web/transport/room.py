"""How many connections a process takes besides its sockets, and of them each client, and what it keeps for health.

All are bounded together and by the open files of the process, and each network client by `MAX_EACH`; proxies that are
trusted are not clients. Beyond that a few places are kept for health checks and scrapes, of each client fewer still, so
that whoever takes everything does not make the service look dead: anything else is refused there, and soon.
"""

from __future__ import annotations

import sys
from collections import Counter
from typing import NamedTuple
from weakref import WeakKeyDictionary

from uvicorn.server import ServerState

from klines.errors import KlinesError, TooManyRequests, Unavailable

MAX_PLAIN = 2_000
MAX_EACH = 256
KEPT = 64
KEPT_EACH = 4
KEPT_FOR = (b"/health/", b"/metrics")
OTHER_FILES = 256
"""Open files besides clients' connections: the database's, logs, libraries; of few files it is half."""

_rooms: WeakKeyDictionary[ServerState, Room] = WeakKeyDictionary()


class Place(NamedTuple):
    """Of one connection: whose share it is (None: nobody's), and what it hears unless it asks for what is kept."""

    client: str | None
    refusal: KlinesError | None

    def is_for(self, target: bytes) -> bool:
        """Whether a request for this target may be served here."""
        return self.refusal is None or target.startswith(KEPT_FOR)


class Room:
    """The room of one server process: `plain` are its connections that are no sockets, or not yet."""

    def __init__(self) -> None:
        self.plain = self.kept = 0
        self._each: Counter[str | None] = Counter()
        self._kept_each: Counter[str | None] = Counter()
        files = open_files()
        self._most = sys.maxsize if files is None else files - min(OTHER_FILES, files // 2)
        self._at_all = self._most + min(OTHER_FILES, self._most) // 2

    def take(self, client: str | None, connections: int) -> Place:
        """A place for one more connection, of so many that are open with it; raises what stands against any."""
        refusal = self._refusal(client, connections)
        if refusal is None:
            self.plain += 1
            self._each[client] += 1
        elif self.kept >= KEPT or (client is not None and self._kept_each[client] >= KEPT_EACH):
            raise refusal
        else:
            self.kept += 1
            self._kept_each[client] += 1
        return Place(client, refusal)

    def leave(self, place: Place) -> None:
        """The connection has ended, or become a socket."""
        of_each = self._each if place.refusal is None else self._kept_each
        of_each[place.client] -= 1
        if not of_each[place.client]:
            del of_each[place.client]
        if place.refusal is None:
            self.plain -= 1
        else:
            self.kept -= 1

    def is_out_of_files(self, connections: int) -> bool:
        """Whether there is not even room for telling it."""
        return connections > self._at_all

    def _refusal(self, client: str | None, connections: int) -> KlinesError | None:
        if self.plain >= MAX_PLAIN:
            why = f"all {MAX_PLAIN} connections without a stream are taken"
        elif connections > self._most:
            why = f"all {self._most} connections that the limit of open files allows are taken"
        elif client is not None and self._each[client] >= MAX_EACH:
            detail = f"at most {MAX_EACH} connections without a stream each; one must end first"
            return TooManyRequests(detail, code="client_connections_exhausted", retry_after=1)
        else:
            return None
        return Unavailable(why, code="connections_exhausted")


def room_of(state: ServerState) -> Room:
    """The room of the server with this state."""
    return _rooms.setdefault(state, Room())


def open_files() -> int | None:
    """The process's limit of open files; None: there is none, or none that it tells."""
    if sys.platform == "win32":
        return None
    import resource  # noqa: PLC0415 - not on every platform

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft in {resource.RLIM_INFINITY, -1} else soft
