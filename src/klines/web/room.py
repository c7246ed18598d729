"""How many connections a process takes besides its sockets, and how many in all: so many as its open files allow."""

from __future__ import annotations

import sys
from weakref import WeakKeyDictionary

from uvicorn.server import ServerState

MAX_PLAIN = 2_000
OTHER_FILES = 256
"""Open files besides clients' connections: the database's, logs, libraries; of few files it is half."""

_rooms: WeakKeyDictionary[ServerState, Room] = WeakKeyDictionary()


class Room:
    """The room of one server process. `plain`: its connections that are no sockets, or not yet."""

    def __init__(self) -> None:
        self.plain = 0
        files = open_files()
        self._most = sys.maxsize if files is None else files - min(OTHER_FILES, files // 2)
        self._at_all = self._most + min(OTHER_FILES, self._most) // 2

    def refusal(self, connections: int) -> str | None:
        """Why one more connection, of so many that are open with it, is refused; None: it is not."""
        if self.plain >= MAX_PLAIN:
            return f"all {MAX_PLAIN} connections without a stream are taken"
        if connections > self._most:
            return f"all {self._most} connections that the limit of open files allows are taken"
        return None

    def is_out_of_files(self, connections: int) -> bool:
        """Whether there is not even room for telling it."""
        return connections > self._at_all


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
