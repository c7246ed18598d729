"""The transport as one answer writes to it: its head waits for the first piece of its body, and both are one write.

ASGI has a server wait so (HTTP & WebSocket specification, "Response Start"). uvicorn writes the head at once, and each
write of a few hundred bytes wakes the client for nothing.
"""

from __future__ import annotations

import asyncio
from typing import Any


class Joined:
    """In place of the transport in uvicorn's cycle of one request, which writes, closes, and asks if it is closing."""

    __slots__ = ("_begun", "_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: Any) -> None:
        self._transport, self._cycle = transport, cycle
        self._head = b""
        # An answer to HEAD has nothing that its head could wait for.
        self._begun = cycle.scope["method"] == "HEAD"

    def write(self, data: bytes) -> None:
        """Write, but for the head."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        elif self._begun or not self._cycle.response_started:
            # Also `100 Continue`, which comes before any answer.
            self._transport.write(data)
        else:
            self._head, self._begun = data, True

    def close(self) -> None:
        """Close once everything is written."""
        if self._head:
            self.write(b"")
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closing."""
        return self._transport.is_closing()
