"""Request weights: what an address takes out of its client's budget of reads, as Binance's documents say.

The budget is the one of `klines.web.admission.limits`; the gate writes what a client has used into every answer.
"""

from __future__ import annotations

from typing import Any

from litestar.types import ASGIApp, Receive, Send

from klines.web.admission.limits import spend
from klines.web.services import Incoming

WEIGHT = "weight"


def weigh(request: Incoming, weight: int) -> None:
    """Take what this request weighs beyond its address's weight; raises `TooManyRequests`."""
    spend(request.scope, weight - request.route_handler.opt[WEIGHT])


def weighed(app: ASGIApp) -> ASGIApp:
    """Wrap a route: its weight is taken first, beyond the 1 that the gate took."""

    async def counted(scope: Any, receive: Receive, send: Send) -> None:
        spend(scope, scope["route_handler"].opt[WEIGHT] - 1)
        await app(scope, receive, send)

    return counted
