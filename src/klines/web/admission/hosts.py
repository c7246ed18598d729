"""Which names the service is asked by: `Host` must be one of `KLINES_HOSTS` or a name of its own machine.

Where others reach it, that holds only if `KLINES_HOSTS` is set: then nobody else knows by which names they do.

A page elsewhere may have its own name lead to this machine (DNS rebinding): to the browser it then is a page of the
service, and may read everything. Its requests still carry its name, so what carries a strange one is refused. Only
`/health/live` is told to anybody, as whatever looks after the process may ask by any name; it says nothing but that.
"""

from __future__ import annotations

import re
from typing import Any

from klines.errors import Forbidden, echo
from klines.network import hosts

FREE = "/health/live"

_PORT = re.compile(r":[0-9]*$")
_LOOPBACK = re.compile(r"localhost|([a-z0-9-]+\.)+localhost|127(\.[0-9]{1,3}){3}|\[::1\]")


class Hosts:
    """The rule; it holds where names are given, and where the service is `alone` on its machine."""

    def __init__(self, named: str, *, alone: bool) -> None:
        self._named = hosts(named)
        self._holds = bool(self._named) or alone

    def check(self, scope: Any) -> None:
        """Raise `Forbidden` for a request by another name; HTTP/1.0 may leave it out, which no browser does."""
        if scope["path"] == FREE or not self._holds:
            return
        for name, value in scope["headers"]:
            if name == b"host" and not self._serves(value.decode("latin-1").lower()):
                rule = "the service is not asked by this name: add it to KLINES_HOSTS if it should be"
                raise Forbidden(f"Host {echo(value.decode('latin-1'))}: {rule}", code="host_refused")

    def _serves(self, text: str) -> bool:
        host = _PORT.sub("", text)
        return host in self._named or _LOOPBACK.fullmatch(host) is not None
