"""The end of a connection without another word."""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress

NO_LINGER = struct.pack("ii", 1, 0)


def reset(transport: asyncio.Transport) -> None:
    """Abort a connection with a reset: otherwise the kernel goes on offering what it still holds."""
    with suppress(OSError, AttributeError):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    transport.abort()
