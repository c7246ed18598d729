"""Request weights: each answer says how much its client has used up in the present minute. Nothing is refused for it.

A request weighs what Binance's documents say. A client is its address. At most `MAX_CLIENTS` are counted in a minute;
one more is told the weight of its single request.
"""

from __future__ import annotations

import time
from typing import Any

from litestar.types import ASGIApp, Receive, Send

from klines.web.services import Incoming

MAX_CLIENTS = 10_000
WEIGHT = "weight"
HEADERS = (b"x-mbx-used-weight", b"x-mbx-used-weight-1m")


class Ledger:
    """What each client has used up in the minute of the clock that is running."""

    def __init__(self) -> None:
        self._minute = 0
        self._used: dict[str, int] = {}

    def add(self, client: str, weight: int, now: float) -> int:
        """Count a request at `now` (epoch seconds); the sum in its minute."""
        if (minute := int(now // 60)) != self._minute:
            self._minute = minute
            self._used = {}
        used = self._used.get(client, 0) + weight
        if client in self._used or len(self._used) < MAX_CLIENTS:
            self._used[client] = used
        return used


def weigh(request: Incoming, weight: int) -> None:
    """Say what this request weighs, where that depends on its parameters."""
    request.scope["state"][WEIGHT] = weight


def weighed(app: ASGIApp) -> ASGIApp:
    """Wrap a route: its answers, errors too, carry the weight that the client has used."""

    async def counted(scope: Any, receive: Receive, send: Send) -> None:
        scope["state"][WEIGHT] = scope["route_handler"].opt[WEIGHT]

        async def told(message: Any) -> None:
            if message["type"] == "http.response.start":
                client = scope["client"][0] if scope["client"] else ""
                used = _ledger(scope).add(client, scope["state"][WEIGHT], time.time())
                message["headers"] = [*message["headers"], *((name, str(used).encode()) for name in HEADERS)]
            await send(message)

        await app(scope, receive, told)

    return counted


def _ledger(scope: Any) -> Ledger:
    # One for all routes of an application: each of them is wrapped by itself.
    state = scope["litestar_app"].state
    if "weights" not in state:
        state["weights"] = Ledger()
    ledger: Ledger = state["weights"]
    return ledger
