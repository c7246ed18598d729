"""What the server's protocols, below the application, ask of it: whose share a connection uses, who hears of a refusal.

They find it as the attribute `edge` of the application; any other application has none, and then nobody is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from secrets import token_hex
from typing import NamedTuple, Protocol

from uvicorn.config import Config

SEEN = "klines.seen"
"""In a scope: what is noticed of a request, with its `id`."""
_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Refused(NamedTuple):
    """An answer that no application gave: its status and code, the id that it told, and the peer's address."""

    status: int
    code: str
    id: str
    peer: str


class Edge(Protocol):
    """What an application tells its server."""

    def share(self, peer: str) -> str | None:
        """The network client at an address, of which each has a share of the connections; None: it has no bound."""

    def refused(self, refused: Refused) -> None:
        """Count it, and log it where that is wanted."""


class Nobody:
    """The edge of an application that has none."""

    def share(self, peer: str) -> str | None:
        """Nobody's."""

    def refused(self, refused: Refused) -> None:
        """Nothing."""


NOBODY = Nobody()


def edge_of(config: Config) -> Edge:
    """That of a server's application."""
    found: Edge = getattr(config.loaded_app, "edge", NOBODY)
    return found


def request_id(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id of a request: the one it brings, if that is one, else a new one. Names of fields are in lower case."""
    for name, value in headers:
        if name == b"x-request-id" and _ID.fullmatch(value):
            return value.decode("ascii")
    return token_hex(8)
